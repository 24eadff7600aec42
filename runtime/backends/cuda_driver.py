"""The protocol that the two ways to call CUDA's driver share; `runtime.backends.cuda` chooses one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install 'cuda-bindings>=12.9,<14' (wheels), or with the CUDA toolkit: pip install pycuda"
"""What to type where neither of the two is installed."""


class Driver(Protocol):
    """The calls of CUDA's driver. Streams, events, memory and graphs are the implementation's own objects.

    All but `start`, `open` and `push` are called with the context current, those that free things above all: pycuda
    leaks what is freed elsewhere.

    Attributes:
        error: what its calls raise.
        memory_error: a kind of `error`: there is not enough memory.
    """

    error: type[Exception]
    memory_error: type[Exception]

    def start(self) -> int:
        """Initialize CUDA; return the number of devices."""

    def open(self, index: int) -> tuple[str, tuple[int, int]]:
        """Retain a device's primary context; return the product's name and the compute capability."""

    def push(self) -> None: ...
    def pop(self) -> None: ...
    def free_memory(self) -> int: ...

    def allocate(self, size: int) -> Any:  # noqa: ANN401
        """Take device memory; `int` of the result is its address."""

    def free(self, memory: Any) -> None: ...  # noqa: ANN401
    def pinned(self, size: int) -> NDArray[np.uint8]: ...
    def free_pinned(self, host: NDArray[np.uint8]) -> None: ...

    def stream(self) -> Any:  # noqa: ANN401
        """Make a stream that does not wait for the legacy stream, on which other libraries may work."""

    def stream_handle(self, stream: Any) -> int: ...  # noqa: ANN401
    def destroy_stream(self, stream: Any) -> None: ...  # noqa: ANN401
    def event(self) -> Any: ...  # noqa: ANN401
    def destroy_event(self, event: Any) -> None: ...  # noqa: ANN401
    def upload(self, address: int, host: NDArray[np.uint8], stream: Any) -> None: ...  # noqa: ANN401
    def download(self, host: NDArray[np.uint8], address: int, stream: Any) -> None: ...  # noqa: ANN401
    def record(self, event: Any, stream: Any) -> None: ...  # noqa: ANN401
    def wait_for(self, stream: Any, event: Any) -> None: ...  # noqa: ANN401
    def synchronize(self, stream: Any) -> None: ...  # noqa: ANN401

    def begin_capture(self, stream: Any) -> None:  # noqa: ANN401
        """Capture what this thread queues; other threads, as PyTorch's, may go on allocating memory."""

    def end_capture(self, stream: Any) -> Any:  # noqa: ANN401
        """Return the captured work, ready to launch."""

    def launch(self, graph: Any, stream: Any) -> None: ...  # noqa: ANN401
    def destroy_graph(self, graph: Any) -> None: ...  # noqa: ANN401

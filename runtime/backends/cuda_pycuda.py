"""`runtime.backends.cuda.Driver` by pycuda."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, which pycuda has no name for."""

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL."""


class PycudaDriver:
    """The calls of CUDA's driver by pycuda's objects; those for graphs, which it lacks, by ctypes.

    Args:
        cuda: the module `pycuda.driver`.
    """

    def __init__(self, cuda: ModuleType) -> None:
        self._cuda: Any = cuda
        self._library: Any = None
        self.error: type[Exception] = cuda.Error
        self.memory_error: type[Exception] = cuda.MemoryError

    def start(self) -> int:
        self._cuda.init()
        return int(self._cuda.Device.count())

    def open(self, index: int) -> tuple[str, tuple[int, int]]:
        device = self._cuda.Device(index)
        self._context = device.retain_primary_context()
        return str(device.name()), device.compute_capability()

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._context.pop()

    def free_memory(self) -> int:
        return int(self._cuda.mem_get_info()[0])

    def allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._cuda.mem_alloc(size)

    def free(self, memory: Any) -> None:  # noqa: ANN401
        memory.free()

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return self._cuda.pagelocked_empty(size, np.uint8)

    def free_pinned(self, host: NDArray[np.uint8]) -> None:
        memory: Any = host.base
        memory.free()

    def stream(self) -> Any:  # noqa: ANN401
        return self._cuda.Stream(NON_BLOCKING)

    def stream_handle(self, stream: Any) -> int:  # noqa: ANN401
        return int(stream.handle)

    def destroy_stream(self, stream: Any) -> None:  # noqa: ANN401
        """Do nothing: the object destroys its stream when nothing refers to it any more, with the context current."""

    def event(self) -> Any:  # noqa: ANN401
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def destroy_event(self, event: Any) -> None:  # noqa: ANN401
        """Do nothing, as `destroy_stream`."""

    def upload(self, address: int, host: NDArray[np.uint8], stream: Any) -> None:  # noqa: ANN401
        self._cuda.memcpy_htod_async(address, host, stream)

    def download(self, host: NDArray[np.uint8], address: int, stream: Any) -> None:  # noqa: ANN401
        self._cuda.memcpy_dtoh_async(host, address, stream)

    def record(self, event: Any, stream: Any) -> None:  # noqa: ANN401
        event.record(stream)

    def wait_for(self, stream: Any, event: Any) -> None:  # noqa: ANN401
        stream.wait_for_event(event)

    def synchronize(self, stream: Any) -> None:  # noqa: ANN401
        stream.synchronize()

    def begin_capture(self, stream: Any) -> None:  # noqa: ANN401
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream.handle), THREAD_LOCAL)

    def end_capture(self, stream: Any) -> Any:  # noqa: ANN401
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream.handle), ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return executable

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ANN401
        self._call("cuGraphLaunch", graph, ctypes.c_void_p(stream.handle))

    def destroy_graph(self, graph: Any) -> None:  # noqa: ANN401
        self._call("cuGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            if self._library is None:
                self._library = load_library()
            status = getattr(self._library, name)(*arguments)
        except OSError as error:
            raise self.error(str(error)) from error
        except AttributeError as error:
            raise self.error(f"the driver has no {name}") from error
        if status != 0:
            raise self.error(f"{name} failed with CUDA error {status}")


def load_library() -> ctypes.CDLL:
    """Load CUDA's driver library.

    Raises:
        OSError: it is not installed.
    """
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

"""Every call of pycuda and of CUDA's driver: the device, its memory, copies that run beside the network, graphs."""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError, IgnnError
from . import BackendMemoryError

logger = logging.getLogger("ignn")

THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads, as PyTorch's, may go on allocating memory."""


class Device:
    """A CUDA device through its primary context, the one that PyTorch and ONNX Runtime use too.

    Attributes:
        name: the product's name.
        compute_capability: `8.6`.

    Raises:
        BackendUnavailableError: pycuda is not installed, or there is no such device.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._cuda: Any = importlib.import_module("pycuda.driver")
        except (ImportError, OSError) as error:
            raise BackendUnavailableError(
                f"pycuda cannot be imported ({error}). With the CUDA toolkit and an NVIDIA driver: pip install pycuda"
            ) from error
        try:
            self._cuda.init()
            count = self._cuda.Device.count()
            if index >= count:
                raise BackendUnavailableError(f"There is no CUDA device {index}: {count} found. Type: ignn doctor")
            device = self._cuda.Device(index)
            self.name = str(device.name())
            self.compute_capability = "{}.{}".format(*device.compute_capability())
            self._context = device.retain_primary_context()
            self._graphs = Graphs()
        except self._cuda.Error as error:
            raise BackendUnavailableError(
                f"CUDA found no device ({error}). Install the driver, or run elsewhere: --backend ort --provider cpu"
            ) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context this thread's. CUDA's errors become ours."""
        self._context.push()
        try:
            yield
        except self._cuda.MemoryError as error:
            raise BackendMemoryError(str(error)) from error
        except self._cuda.Error as error:
            raise IgnnError(f"CUDA failed on {self.name}: {error}. `ignn doctor` says what is installed.") from error
        finally:
            self._context.pop()

    def free_memory(self) -> int:
        """Return the bytes that are free on the device."""
        with self.current():
            return int(self._cuda.mem_get_info()[0])

    def event(self) -> Any:  # noqa: ANN401 - pycuda has no types
        """Make a point in a stream that other streams can wait for; call in `current()`."""
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def lane(self) -> Lane:
        """Make what one input in flight needs; call in `current()`."""
        return Lane(self._cuda, self._graphs)


class Lane:
    """One input in flight: a stream, and pinned host memory and device memory that grow to the largest seen.

    Every method is called in `Device.current()`.
    """

    def __init__(self, cuda: Any, graphs: Graphs) -> None:  # noqa: ANN401
        self._cuda, self._graphs = cuda, graphs
        self._stream = cuda.Stream()
        self._graph: ctypes.c_void_p | None = None
        self._enqueued = False
        self._host: dict[str, NDArray[np.uint8]] = {}
        self._device: dict[str, tuple[Any, int]] = {}

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def address(self, name: str, size: int) -> int:
        """Return the device address of `size` bytes."""
        memory, there = self._device.get(name, (None, 0))
        if there < size:
            self.forget()
            if memory is not None:
                del self._device[name]
                memory.free()
            self._device[name] = self._cuda.mem_alloc(size), size
        return int(self._device[name][0])

    def upload(self, name: str, values: NDArray[Any]) -> int:
        """Begin to copy an array to the device; returns its address there."""
        address = self.address(name, values.nbytes)
        host = self._pinned(name, values.nbytes)
        np.copyto(host.view(values.dtype).reshape(values.shape), values)
        self._cuda.memcpy_htod_async(address, host, self._stream)
        return address

    def download(self, name: str, size: int) -> None:
        """Begin to copy `size` bytes back."""
        self._cuda.memcpy_dtoh_async(self._pinned(name, size), self.address(name, size), self._stream)

    def enqueue(self, work: Callable[[], bool]) -> bool:
        """Queue the same work each time: `work` queues it on this stream, and returns whether it could.

        The first time plainly, which lets TensorRT settle what depends on the shape; the second time it is captured in
        a graph, which is launched from then on. `forget()` begins anew.
        """
        if self._graph is None and self._enqueued:
            self._graph = self._graphs.capture(self.stream, work)
        if self._graph is not None and self._graphs.launch(self._graph, self.stream):
            return True
        self._enqueued = work()
        return self._enqueued

    def forget(self) -> None:
        """Forget the captured work, because its shapes or addresses change."""
        if self._graph is not None:
            self._graphs.destroy(self._graph)
        self._graph, self._enqueued = None, False

    def __del__(self) -> None:
        self.forget()

    def wait_for(self, event: Any) -> None:  # noqa: ANN401
        """Make later work wait for the event; one that was never recorded is over."""
        self._stream.wait_for_event(event)

    def record(self, event: Any) -> None:  # noqa: ANN401
        """Put the event after all work begun so far."""
        event.record(self._stream)

    def result(self, name: str, size: int) -> NDArray[np.uint8]:
        """Wait for all that was begun; a copy of the `size` bytes that were downloaded."""
        self.synchronize()
        return self._pinned(name, size).copy()

    def synchronize(self) -> None:
        """Wait for all that was begun."""
        self._stream.synchronize()

    def _pinned(self, name: str, size: int) -> NDArray[np.uint8]:
        if name not in self._host or self._host[name].size < size:
            self._host.pop(name, None)
            self._host[name] = self._cuda.pagelocked_empty(size, np.uint8)
        return self._host[name][:size]


class Graphs:
    """CUDA graphs by the driver's own calls: pycuda has none. After one failure no more are used, and the log says so.

    `capture` and `launch` are called in `Device.current()`.
    """

    def __init__(self) -> None:
        self._driver: Any = None
        try:
            self._driver = load_driver()
        except OSError as error:
            self._give_up(error)
        self._usable = self._driver is not None

    def capture(self, stream: int, work: Callable[[], bool]) -> ctypes.c_void_p | None:
        """Capture what `work` queues on the stream, ready to launch; nothing runs yet. None if it cannot be."""
        if not self._usable:
            return None
        handle, graph, executable = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
        try:
            self._call("cuStreamBeginCapture_v2", handle, THREAD_LOCAL)
            try:
                queued = work()
            finally:
                self._call("cuStreamEndCapture", handle, ctypes.byref(graph))
            if not queued:
                raise _GraphError("TensorRT does not queue its work while it is captured")
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
            return executable
        except _GraphError as error:
            self._give_up(error)
            return None
        finally:
            if graph:
                self._driver.cuGraphDestroy(graph)

    def launch(self, graph: ctypes.c_void_p, stream: int) -> bool:
        """Queue a graph; False if it cannot be."""
        if not self._usable:
            return False
        try:
            self._call("cuGraphLaunch", graph, ctypes.c_void_p(stream))
        except _GraphError as error:
            self._give_up(error)
            return False
        return True

    def destroy(self, graph: ctypes.c_void_p) -> None:
        """Free a graph; one that runs ends first."""
        self._driver.cuGraphExecDestroy(graph)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            status = getattr(self._driver, name)(*arguments)
        except AttributeError as error:
            raise _GraphError(f"the driver has no {name}") from error
        if status != 0:
            raise _GraphError(f"{name} failed with CUDA error {status}")

    def _give_up(self, reason: Exception) -> None:
        self._usable = False
        logger.warning("no CUDA graphs: %s. The network runs without them; small pictures take longer.", reason)


class _GraphError(Exception):
    """A call of the driver failed."""


def load_driver() -> ctypes.CDLL:
    """Load CUDA's driver library.

    Raises:
        OSError: it is not installed.
    """
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")

"""The CUDA device: its memory, copies that run beside the network, graphs.

The only module that touches CUDA: by pycuda where it is installed, else by cuda-bindings, NVIDIA's own. Both go through
the device's primary context, the one that PyTorch, ONNX Runtime and TensorRT use; it is kept until the process ends, as
theirs is.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailableError, IgnnError
from . import BackendMemoryError
from .cuda_bindings import BindingsDriver
from .cuda_driver import INSTALL, Driver
from .cuda_pycuda import PycudaDriver

logger = logging.getLogger("ignn")


def find_driver() -> Driver:
    """Return pycuda's calls where it is installed, else those of cuda-bindings.

    Raises:
        BackendUnavailableError: neither can be imported.
    """
    try:
        return PycudaDriver(importlib.import_module("pycuda.driver"))
    except (ImportError, OSError) as error:
        absent, reason = isinstance(error, ModuleNotFoundError), str(error)
    try:
        found = BindingsDriver(importlib.import_module("cuda.bindings.driver"))
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"Neither pycuda ({reason}) nor cuda-bindings ({error}) can be imported. Install one: {INSTALL}"
        ) from error
    if not absent:
        logger.warning("pycuda cannot be imported (%s): CUDA is called through cuda-bindings", reason)
    return found


class Device:
    """A CUDA device; get it by `open_device`.

    Attributes:
        name: the product's name.
        compute_capability: `8.6`.
    """

    def __init__(self, index: int) -> None:
        self._driver = find_driver()
        try:
            count = self._driver.start()
            if index >= count:
                raise BackendUnavailableError(f"There is no CUDA device {index}: {count} found. Type: ignn doctor")
            self.name, capability = self._driver.open(index)
        except self._driver.error as error:
            raise BackendUnavailableError(
                f"CUDA found no device ({error}). Install the driver, or run elsewhere: --backend ort --provider cpu"
            ) from error
        self.compute_capability = "{}.{}".format(*capability)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context this thread's. CUDA's errors become ours."""
        self._driver.push()
        try:
            yield
        except self._driver.memory_error as error:
            raise BackendMemoryError(str(error)) from error
        except self._driver.error as error:
            raise IgnnError(f"CUDA failed on {self.name}: {error}. `ignn doctor` says what is installed.") from error
        finally:
            self._driver.pop()

    def free_memory(self) -> int:
        """Return the bytes that are free on the device."""
        with self.current():
            return self._driver.free_memory()

    def lanes(self, count: int) -> list[Lane]:
        """Make what so many inputs in flight need; call in `current()`."""
        graphs = Graphs(self._driver)
        return [Lane(self._driver, graphs) for _ in range(count)]

    def retire(self, free: Callable[[], None]) -> None:
        """Call `free` with the context current: now, or after the capture of a graph, which freeing would break.

        For finalizers: Python may run them in any thread, at any point.
        """
        _retired.append((self, free))
        _free_retired()


@functools.cache
def open_device(index: int = 0) -> Device:
    """Return a CUDA device, the same object each time: pycuda frees memory through the context that it was taken with.

    Raises:
        BackendUnavailableError: neither pycuda nor cuda-bindings is installed, or there is no such device.
    """
    return Device(index)


_retired: deque[tuple[Device, Callable[[], None]]] = deque()
_capture = threading.local()


def _free_retired() -> None:
    if getattr(_capture, "under_way", False):
        return
    while _retired:
        with suppress(IndexError):  # another thread took the last
            device, free = _retired.popleft()
            try:
                with device.current():
                    free()
            except (IgnnError, BackendMemoryError) as error:
                logger.warning("memory of %s could not be freed: %s", device.name, error)


class Lane:
    """One input in flight: a stream, and pinned host memory and device memory that grow to the largest seen.

    Every method is called in `Device.current()`; `free` ends it.
    """

    def __init__(self, driver: Driver, graphs: Graphs) -> None:
        self._driver, self._graphs = driver, graphs
        self._stream = driver.stream()
        self._computed = driver.event()
        self._graph: Any = None
        self._enqueued = False
        self._host: dict[str, NDArray[np.uint8]] = {}
        self._device: dict[str, tuple[Any, int]] = {}

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._driver.stream_handle(self._stream)

    def address(self, name: str, size: int) -> int:
        """Return the device address of `size` bytes."""
        memory, there = self._device.get(name, (None, 0))
        if there < size:
            self.forget()
            if memory is not None:
                del self._device[name]
                self._driver.free(memory)
            self._device[name] = self._driver.allocate(size), size
        return int(self._device[name][0])

    def upload(self, name: str, values: NDArray[Any]) -> int:
        """Begin to copy an array to the device; returns its address there."""
        address = self.address(name, values.nbytes)
        host = self._pinned(name, values.nbytes)
        np.copyto(host.view(values.dtype).reshape(values.shape), values)
        self._driver.upload(address, host, self._stream)
        return address

    def download(self, name: str, size: int) -> None:
        """Begin to copy `size` bytes back."""
        self._driver.download(self._pinned(name, size), self.address(name, size), self._stream)

    def enqueue(self, work: Callable[[], bool]) -> bool:
        """Queue the same work each time: `work` queues it on this stream, and returns whether it could.

        The first time plainly, which lets TensorRT settle what depends on the shape; the second time it is captured in
        a graph, which is launched from then on. `forget()` begins anew.
        """
        if self._graph is None and self._enqueued:
            self._graph = self._graphs.capture(self._stream, work)
        if self._graph is not None and self._graphs.launch(self._graph, self._stream):
            return True
        self._enqueued = work()
        return self._enqueued

    def forget(self) -> None:
        """Forget the captured work, because its shapes or addresses change."""
        graph, self._graph, self._enqueued = self._graph, None, False
        if graph is not None:
            self._driver.destroy_graph(graph)

    def wait_for(self, other: Lane) -> None:
        """Make later work wait for what the other lane had computed at its last `mark`; without one, for nothing."""
        self._driver.wait_for(self._stream, other._computed)

    def mark(self) -> None:
        """Mark what was begun so far as computed, for `wait_for`."""
        self._driver.record(self._computed, self._stream)

    def result(self, name: str, size: int) -> NDArray[np.uint8]:
        """Wait for all that was begun; a copy of the `size` bytes that were downloaded."""
        self.synchronize()
        return self._pinned(name, size).copy()

    def synchronize(self) -> None:
        """Wait for all that was begun."""
        self._driver.synchronize(self._stream)

    def free(self) -> None:
        """Wait for all that was begun, and give back all memory. The lane is of no use afterwards."""
        self.synchronize()
        self.forget()
        while self._device:
            self._driver.free(self._device.popitem()[1][0])
        while self._host:
            self._driver.free_pinned(self._host.popitem()[1])
        self._driver.destroy_event(self._computed)
        self._driver.destroy_stream(self._stream)
        self._computed = self._stream = None  # pycuda destroys what nothing refers to

    def _pinned(self, name: str, size: int) -> NDArray[np.uint8]:
        if name not in self._host or self._host[name].size < size:
            if name in self._host:
                self._driver.free_pinned(self._host.pop(name))
            self._host[name] = self._driver.pinned(size)
        return self._host[name][:size]


class Graphs:
    """CUDA graphs of some lanes. After one failure no more are used, and the log says so."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._usable = True

    def capture(self, stream: Any, work: Callable[[], bool]) -> Any:  # noqa: ANN401
        """Capture what `work` queues on the stream, ready to launch; nothing runs yet. None if it cannot be."""
        if not self._usable:
            return None
        graph, queued = None, False
        try:
            _capture.under_way = True
            self._driver.begin_capture(stream)
            try:
                queued = work()
            finally:
                graph = self._driver.end_capture(stream)
        except self._driver.error as error:
            self._give_up(error)
            return None
        finally:
            _capture.under_way = False
            if graph is not None and not queued:
                self._driver.destroy_graph(graph)
            _free_retired()
        if not queued:
            self._give_up("TensorRT does not queue its work while it is captured")
            return None
        return graph

    def launch(self, graph: Any, stream: Any) -> bool:  # noqa: ANN401
        """Queue a graph; False if it cannot be."""
        if not self._usable:
            return False
        try:
            self._driver.launch(graph, stream)
        except self._driver.error as error:
            self._give_up(error)
            return False
        return True

    def _give_up(self, reason: object) -> None:
        self._usable = False
        logger.warning("no CUDA graphs: %s. The network runs without them; small pictures take longer.", reason)

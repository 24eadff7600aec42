"""Every call of pycuda: the device, its memory, and copies that run beside the network."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends import BackendMemoryError
from runtime.errors import BackendUnavailableError, IgnnError


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
        """Bytes free on the device."""
        with self.current():
            return int(self._cuda.mem_get_info()[0])

    def event(self) -> Any:  # noqa: ANN401 - pycuda has no types
        """A point in a stream that other streams can wait for; call in `current()`."""
        return self._cuda.Event(self._cuda.event_flags.DISABLE_TIMING)

    def lane(self) -> Lane:
        """What one input in flight needs; call in `current()`."""
        return Lane(self._cuda)


class Lane:
    """One input in flight: a stream, and pinned host memory and device memory that grow to the largest seen.

    Every method is called in `Device.current()`.
    """

    def __init__(self, cuda: Any) -> None:  # noqa: ANN401
        self._cuda = cuda
        self._stream = cuda.Stream()
        self._host: dict[str, NDArray[np.uint8]] = {}
        self._device: dict[str, tuple[Any, int]] = {}

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def address(self, name: str, size: int) -> int:
        """The device address of `size` bytes."""
        memory, there = self._device.get(name, (None, 0))
        if there < size:
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

    def wait_for(self, event: Any) -> None:  # noqa: ANN401
        """What is begun later waits for the event; one that was never recorded is over."""
        self._stream.wait_for_event(event)

    def record(self, event: Any) -> None:  # noqa: ANN401
        """The event is over when all begun so far is."""
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

"""`runtime.backends.cuda.Driver` by cuda-bindings, NVIDIA's Python module of the driver's own calls."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CudaError(Exception):
    """A call of the driver failed."""


class CudaMemoryError(CudaError):
    """There is not enough memory."""


class BindingsDriver:
    """The calls of CUDA's driver. Each returns its status, then its results.

    Args:
        cuda: the module `cuda.bindings.driver`.
    """

    error: type[Exception] = CudaError
    memory_error: type[Exception] = CudaMemoryError

    def __init__(self, cuda: ModuleType) -> None:
        self._cuda: Any = cuda

    def start(self) -> int:
        try:
            self._call("cuInit", 0)
        except RuntimeError as error:  # the driver's library is not installed
            raise CudaError(str(error)) from error
        return int(self._call("cuDeviceGetCount"))

    def open(self, index: int) -> tuple[str, tuple[int, int]]:
        device = self._call("cuDeviceGet", index)
        name = self._call("cuDeviceGetName", 256, device).split(b"\0")[0].decode(errors="replace")
        attributes = self._cuda.CUdevice_attribute
        major, minor = (
            int(self._call("cuDeviceGetAttribute", attribute, device))
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        return name, (major, minor)

    def push(self) -> None:
        self._call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self._call("cuCtxPopCurrent")

    def free_memory(self) -> int:
        return int(self._call("cuMemGetInfo")[0])

    def allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._call("cuMemAlloc", size)

    def free(self, memory: Any) -> None:  # noqa: ANN401
        self._call("cuMemFree", memory)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        address = self._call("cuMemHostAlloc", size, 0)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def free_pinned(self, host: NDArray[np.uint8]) -> None:
        self._call("cuMemFreeHost", host.ctypes.data)

    def stream(self) -> Any:  # noqa: ANN401
        return self._call("cuStreamCreate", self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING.value)

    def stream_handle(self, stream: Any) -> int:  # noqa: ANN401
        return int(stream)

    def destroy_stream(self, stream: Any) -> None:  # noqa: ANN401
        self._call("cuStreamDestroy", stream)

    def event(self) -> Any:  # noqa: ANN401
        return self._call("cuEventCreate", self._cuda.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)

    def destroy_event(self, event: Any) -> None:  # noqa: ANN401
        self._call("cuEventDestroy", event)

    def upload(self, address: int, host: NDArray[np.uint8], stream: Any) -> None:  # noqa: ANN401
        self._call("cuMemcpyHtoDAsync", address, host.ctypes.data, host.nbytes, stream)

    def download(self, host: NDArray[np.uint8], address: int, stream: Any) -> None:  # noqa: ANN401
        self._call("cuMemcpyDtoHAsync", host.ctypes.data, address, host.nbytes, stream)

    def record(self, event: Any, stream: Any) -> None:  # noqa: ANN401
        self._call("cuEventRecord", event, stream)

    def wait_for(self, stream: Any, event: Any) -> None:  # noqa: ANN401
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize(self, stream: Any) -> None:  # noqa: ANN401
        self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: Any) -> None:  # noqa: ANN401
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:  # noqa: ANN401
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: ANN401
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:  # noqa: ANN401
        self._call("cuGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401
        """Call the driver; return its result, a list of several, or None."""
        status, *results = getattr(self._cuda, name)(*arguments)
        if status.value != 0:
            kind = CudaMemoryError if status == self._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY else CudaError
            raise kind(f"{name} failed with CUDA error {status.value} ({status.name})")
        return results if len(results) > 1 else results[0] if results else None

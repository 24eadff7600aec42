"""pycuda, cuda-bindings and the driver's library at their edge, for a `fake_cuda.Machine`.

They mind what the real ones mind: a call needs this thread's context; pycuda's objects can be freed only where their
own context is current, and leak elsewhere; what is freed twice is an error.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fake_cuda import Machine


class Contexts:
    """Each thread's stack of contexts."""

    def __init__(self) -> None:
        self.retained = 0
        self._here = threading.local()

    @property
    def stack(self) -> list[object]:
        if not hasattr(self._here, "stack"):
            self._here.stack = []
        return self._here.stack

    @property
    def current(self) -> object:
        return self.stack[-1] if self.stack else None

    def push(self, context: object) -> None:
        self.stack.append(context)

    def pop(self) -> None:
        assert self.stack, "pop without push"
        self.stack.pop()


def pycuda(machine: Machine) -> ModuleType:
    """The module `pycuda.driver`."""
    cuda = ModuleType("pycuda.driver")
    contexts = machine.contexts

    class Error(Exception): ...

    class OutOfMemoryError(Error): ...

    class Context:
        def push(self) -> None:
            contexts.push(self)

        def pop(self) -> None:
            contexts.pop()

    class Device:
        def __init__(self, index: int) -> None: ...

        @staticmethod
        def count() -> int:
            return machine.count

        def name(self) -> str:
            return machine.gpu

        def compute_capability(self) -> tuple[int, int]:
            return 8, 6

        def retain_primary_context(self) -> Context:
            contexts.retained += 1
            return Context()

    class Owned:
        """An object of a context, which frees itself where that context is current."""

        release: Callable[[], None] | None = None

        def take(self, release: Callable[[], None]) -> None:
            assert contexts.current is not None, "no currently active context?"
            self.context, self.release = contexts.current, release

        def free(self) -> None:
            assert self.release is not None, "invalid handle"
            release, self.release = self.release, None
            if contexts.current is self.context:
                release()

        def __del__(self) -> None:
            if self.release is not None:
                self.free()

    class Allocation(Owned):
        def __init__(self, size: int) -> None:
            try:
                self.address = machine.allocate(size)
            except MemoryError:
                raise OutOfMemoryError("cuMemAlloc failed: out of memory") from None
            self.take(lambda: machine.free(self.address))

        def __int__(self) -> int:
            return self.address

    class Stream(Owned):
        def __init__(self, flags: int = 0) -> None:
            self.handle = machine.make("stream", flags)
            self.take(lambda: machine.destroy("stream"))

        def synchronize(self) -> None:
            assert contexts.current is self.context
            machine.synchronize()

        def wait_for_event(self, event: Event) -> None:
            assert event.release is not None

    class Event(Owned):
        def __init__(self, flags: int) -> None:
            machine.make("event", flags)
            self.take(lambda: machine.destroy("event"))

        def record(self, stream: Stream) -> None:
            assert stream.release is not None

    class Pinned(Owned):
        def __init__(self, size: int) -> None:
            self.memory = np.zeros(size, np.uint8)
            machine.make("pinned", 0)
            self.take(lambda: machine.destroy("pinned"))

        @property
        def __array_interface__(self) -> dict:
            return self.memory.__array_interface__

    def init() -> None:
        if machine.count < 0:
            raise Error("cuInit failed: no CUDA-capable device is detected")

    cuda.__dict__.update(
        Error=Error, MemoryError=OutOfMemoryError, Device=Device, Stream=Stream, Event=Event, init=init,
        mem_alloc=Allocation, event_flags=SimpleNamespace(DISABLE_TIMING=2),
        pagelocked_empty=lambda size, dtype: np.asarray(Pinned(size)),
        memcpy_htod_async=lambda address, host, stream: machine.upload(address, host),
        memcpy_dtoh_async=lambda host, address, stream: machine.download(host, address),
        mem_get_info=lambda: (machine.memory - machine.used, machine.memory),
    )  # fmt: skip
    return cuda


def library(machine: Machine) -> SimpleNamespace:
    """`libcuda.so.1` by ctypes: the calls for graphs, which pycuda lacks."""

    def end(stream: object, graph: Any) -> int:
        graph._obj.value = machine.end_capture()
        return 0 if graph._obj.value else 901

    def instantiate(executable: Any, graph: Any, flags: object) -> int:
        executable._obj.value = graph.value
        return 0

    return SimpleNamespace(
        cuStreamBeginCapture_v2=lambda stream, mode: machine.begin_capture(), cuStreamEndCapture=end,
        cuGraphInstantiateWithFlags=instantiate, cuGraphDestroy=lambda graph: 0,
        cuGraphLaunch=lambda graph, stream: machine.launch(graph.value),
        cuGraphExecDestroy=lambda graph: machine.destroy_graph(graph.value),
    )  # fmt: skip


class Handle(int):
    """An opaque handle of cuda-bindings, such as CUstream."""

    kind: str

    def __new__(cls, kind: str, value: int) -> Handle:
        handle = super().__new__(cls, value)
        handle.kind = kind
        return handle


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_LAUNCH_FAILED = 700
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Capability(IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class StreamFlags(IntEnum):
    CU_STREAM_NON_BLOCKING = 1


class EventFlags(IntEnum):
    CU_EVENT_DISABLE_TIMING = 2


class CaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


def bindings(machine: Machine) -> ModuleType:
    """The module `cuda.bindings.driver`; `machine.calls` keeps what it was called with."""
    cuda = ModuleType("cuda.bindings.driver")
    contexts = machine.contexts
    pinned: dict[int, Any] = {}

    def no_device() -> None:
        if machine.count < 0:
            raise CallFailedError(Status.CUDA_ERROR_NO_DEVICE)

    def retain(device: Handle) -> Handle:
        contexts.retained += 1
        return Handle("CUcontext", 1)

    def allocate(size: int) -> Handle:
        try:
            return Handle("CUdeviceptr", machine.allocate(size))
        except MemoryError:
            raise CallFailedError(Status.CUDA_ERROR_OUT_OF_MEMORY) from None

    def host_allocate(size: int, flags: int) -> int:
        machine.make("pinned", flags)
        memory = (ctypes.c_uint8 * size)()
        pinned[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def host_free(address: int) -> None:
        del pinned[address]
        machine.destroy("pinned")

    def host(address: int, size: int) -> np.ndarray:
        return np.frombuffer(pinned[address], np.uint8)[:size]

    def end(stream: Handle) -> Handle:
        graph = machine.end_capture()
        if not graph:
            raise CallFailedError(Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        return Handle("CUgraph", graph)

    def launch(graph: Handle, stream: Handle) -> None:
        if machine.launch(graph):
            raise CallFailedError(Status.CUDA_ERROR_LAUNCH_FAILED)

    without_context: dict[str, Callable[..., object]] = {
        "cuInit": lambda flags: no_device(),
        "cuDeviceGetCount": lambda: machine.count,
        "cuDeviceGet": lambda index: Handle("CUdevice", index),
        "cuDeviceGetName": lambda length, device: machine.gpu.encode() + b"\0" * 9,
        "cuDeviceGetAttribute": lambda attribute, device: {75: 8, 76: 6}[attribute],
        "cuDevicePrimaryCtxRetain": retain,
        "cuCtxPushCurrent": contexts.push,
    }
    with_context: dict[str, Callable[..., object]] = {
        "cuCtxPopCurrent": lambda: (contexts.pop(), Handle("CUcontext", 1))[1],
        "cuMemGetInfo": lambda: (machine.memory - machine.used, machine.memory),
        "cuMemAlloc": allocate,
        "cuMemFree": machine.free,
        "cuMemHostAlloc": host_allocate,
        "cuMemFreeHost": host_free,
        "cuStreamCreate": lambda flags: Handle("CUstream", machine.make("stream", flags)),
        "cuStreamDestroy": lambda stream: machine.destroy("stream"),
        "cuEventCreate": lambda flags: Handle("CUevent", machine.make("event", flags)),
        "cuEventDestroy": lambda event: machine.destroy("event"),
        "cuMemcpyHtoDAsync": lambda to, at, size, stream: machine.upload(to, host(at, size)),
        "cuMemcpyDtoHAsync": lambda to, at, size, stream: machine.download(host(to, size), at),
        "cuEventRecord": lambda event, stream: None,
        "cuStreamWaitEvent": lambda stream, event, flags: None,
        "cuStreamSynchronize": lambda stream: machine.synchronize(),
        "cuStreamBeginCapture": lambda stream, mode: (machine.begin_capture(), None)[1],
        "cuStreamEndCapture": end,
        "cuGraphInstantiate": lambda graph, flags: Handle("CUgraphExec", graph),
        "cuGraphDestroy": lambda graph: None,
        "cuGraphLaunch": launch,
        "cuGraphExecDestroy": lambda graph: (machine.destroy_graph(graph), None)[1],
    }

    def call(name: str, work: Callable[..., object]) -> Callable[..., tuple]:
        def function(*arguments: object) -> tuple:
            machine.calls.append((name, arguments))
            assert name in without_context or contexts.current is not None, f"{name} without a context"
            try:
                result = work(*arguments)
            except CallFailedError as failed:
                return (failed.status, None)
            return (Status.CUDA_SUCCESS, *(result if isinstance(result, tuple) else () if result is None else [result]))

        return function

    cuda.__dict__.update(
        {name: call(name, work) for name, work in (without_context | with_context).items()},
        CUresult=Status, CUdevice_attribute=Capability, CUstream_flags=StreamFlags, CUevent_flags=EventFlags,
        CUstreamCaptureMode=CaptureMode,
    )  # fmt: skip
    return cuda


class CallFailedError(Exception):
    def __init__(self, status: Status) -> None:
        self.status = status


PACKAGES = ("pycuda", "cuda-bindings")


def modules(machine: Machine, package: str) -> dict[str, ModuleType | None]:
    """What `sys.modules` holds where only that package is installed."""
    return {
        "pycuda.driver": pycuda(machine) if package == "pycuda" else None,
        "cuda.bindings.driver": bindings(machine) if package == "cuda-bindings" else None,
    }

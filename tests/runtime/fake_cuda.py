"""A machine with a GPU, and TensorRT on it, at their edge: tensors are in host memory, and calls fail on demand.

Memory is bytes, so that what crosses the bus can be counted. The "engine" is a text: `network|SCALE|GPU|SIZES|LIES`;
the network repeats each pixel. What is not such a text is refused, as TensorRT refuses what it cannot read.
"""

from __future__ import annotations

import ast
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_drivers import Contexts


def make_engine(gpu: str, sizes: tuple, scale: int = 2, **lies: object) -> bytes:
    """An engine for inputs of `sizes`: least, best and most (N, H, W).

    Args:
        lies: what no engine of ours has: `tensors` (names), `inputs` (names), `type`, `rank`.
    """
    return f"network|{scale}|{gpu}|{sizes}|{lies}".encode()


def _read(content: bytes) -> tuple[str, int, tuple, dict]:
    """GPU, scale, sizes and lies of an engine; raises anything on what is not one."""
    kind, scale, gpu, sizes, lies = content.decode().split("|")
    read_sizes, read_lies = ast.literal_eval(sizes), ast.literal_eval(lies)
    least, best, most = read_sizes
    assert kind == "network"
    assert all(len(size) == 3 and type(side) is int for size in (least, best, most) for side in size)
    assert all(isinstance(name, str) for name in read_lies.get("tensors", ()))
    assert 0 < int(scale) < 100
    return gpu, int(scale), read_sizes, read_lies


class Machine:
    """What is there, and what happened."""

    def __init__(self) -> None:
        self.gpu, self.count, self.memory = "Fake 3000", 1, 1 << 30
        self.used = 0
        self.buffers: dict[int, np.ndarray] = {}
        self._next_address = 4096
        self.contexts = Contexts()
        self.live: Counter[str] = Counter()  # streams, events, pinned memory and graphs
        self.engines = 0  # and their contexts
        self.calls: list[tuple[str, tuple]] = []  # of cuda-bindings
        self.up = self.down = 0  # bytes
        self.begun = self.most_begun = 0  # inputs that are not yet waited for
        self.events: list[str] = []
        self.captured: list[Callable[[], None]] | None = None  # while a stream is captured
        self.graphs: list[list[Callable[[], None]]] = []
        self.destroyed = 0
        self.capture_fails = self.launch_fails = False
        self.added = 0.0  # by the network, to every value

    def allocate(self, size: int) -> int:
        assert self.contexts.current is not None
        if self.used + size > self.memory:
            raise MemoryError
        self.used += size
        self._next_address += 512 * (1 + size // 512)
        self.buffers[self._next_address] = np.full(size, 255, np.uint8)  # NaN
        return self._next_address

    def free(self, address: int) -> None:
        assert self.contexts.current is not None
        assert self.captured is None, "freed while a graph is captured"
        self.used -= len(self.buffers.pop(address))

    def make(self, kind: str, flags: int) -> int:
        assert self.contexts.current is not None
        assert kind != "stream" or flags == 1, "a stream that waits for the legacy stream"
        self.live[kind] += 1
        return self.live[kind]

    def destroy(self, kind: str) -> None:
        assert self.contexts.current is not None
        assert self.live[kind] > 0
        self.live[kind] -= 1

    def upload(self, address: int, host: np.ndarray) -> None:
        self.events.append("up")
        self.begun += 1
        self.most_begun = max(self.most_begun, self.begun)
        self.up += host.nbytes
        self.buffers[address][: host.size] = host

    def download(self, host: np.ndarray, address: int) -> None:
        self.events.append("down")
        self.down += host.nbytes
        host[:] = self.buffers[address][: host.size]

    def synchronize(self) -> None:
        self.begun = max(0, self.begun - 1)

    def begin_capture(self) -> int:
        """What runs from now on is kept, and runs when its graph is launched."""
        self.captured = []
        return 0

    def end_capture(self) -> int:
        work, self.captured = self.captured, None
        if not work or self.capture_fails:
            return 0
        self.graphs.append(work)
        self.live["graph"] += 1
        self.events.append("captured")
        return len(self.graphs)

    def launch(self, graph: int) -> int:
        if self.launch_fails:
            return 700
        self.events.append("replay")
        for work in self.graphs[graph - 1]:
            work()
        return 0

    def destroy_graph(self, graph: int) -> int:
        self.destroy("graph")
        self.graphs[graph - 1] = []
        self.destroyed += 1
        return 0

    @property
    def left(self) -> dict[str, object]:
        """What is left on it, and in this thread; empty when all was given back."""
        left = {"bytes": self.used, "engines and contexts": self.engines, "current": self.contexts.stack, **self.live}
        return {name: value for name, value in left.items() if value}

    def map_at(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 values of the device's memory."""
        return self.buffers[address][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)

    def pixel_kernels(self) -> type:
        machine = self

        class PixelKernels:
            """As runtime/backends/pixels.py, for a library whose name is good."""

            def __init__(self, library: Path, *, unit: float) -> None:
                if "good" not in library.name:
                    raise AttributeError(f"{library}: undefined symbol: ignn_pixels_to_map")
                self.unit = np.float32(unit)

            def to_map(self, pixels: int, values: int, size: tuple[int, int, int], stream: int) -> None:
                n, h, w = size
                source = machine.buffers[pixels][: 3 * n * h * w].reshape(n, h, w, 3)
                machine.map_at(values, (n, 3, h, w))[...] = source.transpose(0, 3, 1, 2) / self.unit

            def to_pixels(self, values: int, pixels: int, size: tuple[int, int, int], stream: int) -> None:
                n, h, w = size
                source = machine.map_at(values, (n, 3, h, w)) * self.unit
                target = machine.buffers[pixels]
                target[3 * n * h * w] = not np.isfinite(source).all()
                rounded = np.rint(np.nan_to_num(source)).clip(0, 255)
                target[: 3 * n * h * w] = rounded.transpose(0, 2, 3, 1).reshape(-1)

        return PixelKernels

    def tensorrt(self) -> ModuleType:
        machine = self
        trt = ModuleType("tensorrt")

        class ILogger:
            ERROR, INTERNAL_ERROR = "error", "internal error"

        def _counted(thing: object) -> None:
            """Count it while it lives: TensorRT frees device memory with it, in the context that is current then."""
            machine.engines += 1
            weakref.finalize(thing, dropped).atexit = False

        def dropped() -> None:
            assert machine.contexts.current is not None, "an engine or its context was dropped without a context"
            machine.engines -= 1

        class Context:
            def __init__(self, scale: int) -> None:
                self.scale, self.addresses = scale, {}
                _counted(self)

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                self.shape = shape
                return True

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                n, channels, height, width = self.shape
                return n, channels, self.scale * height, self.scale * width

            def set_tensor_address(self, name: str, address: int) -> None:
                self.addresses[name] = address

            def execute_async_v3(self, stream: int) -> bool:
                (source, target), shape = self.addresses.values(), self.shape  # the input is set first

                def run() -> None:
                    lr = machine.map_at(source, shape)
                    sr = lr.repeat(self.scale, 2).repeat(self.scale, 3) + machine.added
                    machine.map_at(target, sr.shape)[...] = sr

                if machine.captured is not None:
                    machine.captured.append(run)
                    return not machine.capture_fails
                machine.events.append("run")
                run()
                return True

        class Engine:
            def __init__(self, scale: int, sizes: tuple, lies: dict) -> None:
                self.scale, self.sizes, self.lies = scale, sizes, lies
                self.names = lies.get("tensors", ("lr", "sr"))
                self.num_io_tensors = len(self.names)
                _counted(self)

            def create_execution_context(self) -> Context:
                return Context(self.scale)

            def get_tensor_name(self, index: int) -> str:
                return self.names[index]

            def get_tensor_mode(self, name: str) -> str:
                return "in" if name in self.lies.get("inputs", ("lr",)) else "out"

            def get_tensor_dtype(self, name: str) -> str:
                return self.lies.get("type", "float32")

            def get_tensor_profile_shape(self, name: str, profile: int) -> list:
                return [(n, 3, h, w)[: self.lies.get("rank", 4)] for n, h, w in self.sizes]

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
                try:
                    gpu, scale, sizes, lies = _read(content)
                except Exception:
                    self.logger.log("error", "Serialization assertion failed: the engine plan is damaged")
                    return None
                if gpu != machine.gpu:
                    self.logger.log("error", "The engine plan file is generated on an incompatible device")
                    return None
                return Engine(scale, sizes, lies)

        class Registry:
            all_creators: tuple = ()

            def load_library(self, path: str) -> object | None:
                return path if "good" in path else None

        registry = Registry()
        trt.__dict__.update(
            __version__="11.1.0", float32="float32", ILogger=ILogger, Runtime=Runtime,
            get_plugin_registry=lambda: registry,
            init_libnvinfer_plugins=lambda logger, namespace: True,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        )  # fmt: skip
        return trt

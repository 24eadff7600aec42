"""What a network in TensorRT has on the device: a loaded engine, and the memory of its inputs and results."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ..errors import EngineError
from . import BackendMemoryError
from .cuda import Lane
from .engine_build import Profile
from .tensorrt_library import NAMES, Flavor, import_tensorrt, make_logger

_MEMORY_WORDS = ("out of memory", "outofmemory", "cudaerrormemoryallocation", "failed to allocate")


class TensorRT:
    """TensorRT's module and its logger.

    Attributes:
        flavor: `tensorrt` or `tensorrt-rtx`.
        module: its Python module.
        logger: its logger, whose errors go to `said`.
        said: the errors since it was last cleared.

    Raises:
        BackendUnavailableError: it is not installed.
    """

    def __init__(self, flavor: Flavor) -> None:
        self.flavor = flavor
        self.module: ModuleType = import_tensorrt(flavor)
        self.said: list[str] = []
        self.logger = make_logger(self.module, self.said.append)

    @property
    def name(self) -> str:
        """Name and version."""
        return f"{NAMES[self.flavor]} {self.module.__version__}"

    def failure(self, what: str, source: str) -> Exception:
        """Return what TensorRT said as an error: of memory, which smaller tiles can mend, or of the engine."""
        text = " ".join(self.said).lower()
        if any(words in text for words in _MEMORY_WORDS):
            return BackendMemoryError(self.said[-1])
        return EngineError(self.why(what) + f" Build it again: ignn build {source}")

    def why(self, what: str) -> str:
        """Return a sentence: what TensorRT does not do, and what it said."""
        said = f" (it said: {'; '.join(self.said[-3:])})" if self.said else ""
        return f"{self.name} {what}{said}."


class LoadedEngine:
    """A deserialized engine with its context. Made, used and dropped with the device's context current.

    Args:
        trt: TensorRT.
        serialized: the engine's content.
        source: what to call its model in messages.
        place: the device, for messages.
        built: where it came from, for messages; may be empty.

    Attributes:
        context: its execution context.
        input, output: names of its tensors.
        profile: the inputs that it takes.

    Raises:
        EngineError: it is damaged, of another GPU or TensorRT, or not an image in and an image out.
        BackendMemoryError: it does not fit in memory.
    """

    def __init__(self, trt: TensorRT, serialized: bytes, *, source: str, place: str, built: str) -> None:
        trt.said.clear()
        self.context: Any = None
        self._runtime = trt.module.Runtime(trt.logger)
        self._runtime.engine_host_code_allowed = True  # for a plugin library inside the engine
        self._engine = self._runtime.deserialize_cuda_engine(serialized)
        try:
            if self._engine is None:
                raise trt.failure(
                    f"cannot load the engine of {source} on {place}: it is damaged, or of another GPU or version of "
                    f"TensorRT{built}",
                    source,
                )
            self.context = self._make_context(trt)
            if self.context is None:
                raise trt.failure(f"cannot make ready the engine of {source}", source)
            self._check_tensors(trt.module, source)
        except BaseException:
            self.free()  # here, and not wherever the traceback is dropped
            raise

    def free(self) -> None:
        """Drop the context, then the engine, then the runtime, as TensorRT wants it."""
        self.context = self._engine = self._runtime = None

    def _make_context(self, trt: TensorRT) -> Any:  # noqa: ANN401 - TensorRT has no types
        if trt.flavor == "tensorrt":
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _check_tensors(self, module: ModuleType, source: str) -> None:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
        if len(names) != 2 or len(inputs) != 1:
            raise EngineError(f"The engine of {source} has tensors {names}; one image in and one out is meant.")
        sizes = [tuple(shape) for shape in self._engine.get_tensor_profile_shape(inputs[0], 0)]
        types = [self._engine.get_tensor_dtype(name) for name in names]
        if any(len(size) != 4 for size in sizes) or any(kind != module.float32 for kind in types):
            raise EngineError(
                f"The engine of {source} has tensors of {', '.join(map(str, types))}, inputs from {sizes[0]}; "
                f"float32 (N, 3, H, W) is meant. Build it again: ignn build {source}"
            )
        self.input = inputs[0]
        self.output = next(name for name in names if name != self.input)
        self.profile = Profile(*((shape[0], shape[2], shape[3]) for shape in sizes))


@dataclass
class OnDevice:
    """What a backend holds on the device. It knows nothing of the backend, and so can outlive it until it is freed."""

    lanes: list[Lane] = field(default_factory=list)
    engine: LoadedEngine | None = None

    def free(self) -> None:
        """Give all of it back; call with the device's context current."""
        while self.lanes:
            self.lanes.pop().free()
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.free()

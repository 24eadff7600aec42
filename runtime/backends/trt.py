"""TensorRT and TensorRT-RTX themselves, without ONNX Runtime: engines of our own cache, and our plugin."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import BackendUnavailableError, EngineError
from ..metadata import ModelMetadata, read_metadata
from . import Box, Values, closed, non_finite
from .cuda import Lane, open_device
from .engine_build import BuildRequest, Profile, Size, build_engine
from .engine_cache import EngineCache, EngineKey, side_to_build
from .engine_file import EngineFacts
from .onnx_file import read_facts
from .pixels import find_pixel_kernels
from .plugin_library import build_command, find_plugin
from .tensorrt_library import Flavor, load_plugin
from .trt_engine import LoadedEngine, OnDevice, TensorRT

logger = logging.getLogger("ignn")

LANES = 3
"""Inputs in flight: one is copied to the device and one back while the network runs on a third."""

PIXELS_IN, PIXELS_OUT = "8-bit lr", "8-bit sr"
"""Names of the pictures in a lane's memory, beside the network's tensors."""

FLOAT = 4
"""Bytes of a float32."""


class TrtBackend:
    """One network in TensorRT.

    What it holds on the device is given back by `close()`, or when nothing refers to it any more.

    Args:
        model: content of an ONNX file made by `ignn export`.
        source: what to call the model in messages.
        flavor: `tensorrt` or `tensorrt-rtx`.
        engine: content of an engine made by `ignn build` of that model. None: engines of the cache, built on first
            use, for the sizes that come.
        device: index of the CUDA device.
        facts: of `engine`, from the JSON beside it: they stand for the ONNX file, which may be empty then.
        cache: where engines are kept; None: the user's cache folder.
        scale, value_range: of a foreign model.

    Raises:
        BackendUnavailableError: TensorRT, a package that calls CUDA, the plugin library or a CUDA device is missing.
        EngineError: `engine` is damaged, or of another GPU or TensorRT.
        ModelLoadError, ModelMetadataError: about the ONNX file.
    """

    on_host, stages = False, None

    def __init__(
        self,
        model: bytes,
        *,
        source: str,
        flavor: Flavor,
        engine: bytes | None = None,
        device: int = 0,
        facts: EngineFacts | None = None,
        cache: EngineCache | None = None,
        scale: int | None = None,
        value_range: str | None = None,
    ) -> None:
        network = read_facts(model, source=source) if facts is None else facts
        self.metadata: ModelMetadata = read_metadata(
            network.properties, source=source, scale=scale, value_range=value_range
        )
        self._facts = facts
        self._model, self._source, self._flavor = model, source, flavor
        self._trt = TensorRT(flavor)
        self._device = open_device(device)
        self._cache = cache or EngineCache()
        self._plugin = find_plugin(engine) if network.operator_calls else None
        if self._plugin is not None and not load_plugin(self._trt.module, self._trt.logger, self._plugin):
            raise BackendUnavailableError(
                self._trt.why(
                    f"cannot load the plugin library {self._plugin}: damaged, or built for another major version"
                )
                + f" Build it again: {build_command()}"
            )
        self._pixels = find_pixel_kernels(self.metadata.unit)
        self.description = f"{self._trt.name} ({self._device.name})"
        self._lock = threading.Lock()
        self._running_in: int | None = None
        self._closed = False
        self._held = OnDevice()
        self._free = weakref.finalize(self, self._device.retire, self._held.free)
        self._free.atexit = False  # the end of the process gives all back
        self._last: Lane | None = None
        self._size: Size | None = None
        self._fixed = engine is not None
        plugin = "plugin loaded" if self._plugin else "plugin inside" if network.operator_calls else "no plugin"
        self.description += f", engine: {self.metadata.precision}, {plugin}"
        if engine is None:  # one for each size that comes, which makes no difference to the result
            self.description += ", built as needed"
        else:
            with self._device.current():
                self._use(engine)
            self.description += f", {self._profile}"

    @property
    def largest_input(self) -> tuple[int, int] | None:
        """Height and width of the largest input of an engine that was given; None where engines are built as needed."""
        return self._profile.maximum[1:] if self._fixed and self._profile is not None else None

    @property
    def _profile(self) -> Profile | None:
        return None if self._held.engine is None else self._held.engine.profile

    @property
    def takes_bytes(self) -> bool:
        """See `Backend.takes_bytes`."""
        return self._pixels is not None

    def run(self, lr: Values) -> Values:
        """See `Backend.run`."""
        return next(self.run_all([lr]))

    def run_kept(self, lr: Values, kept: Box) -> Values:
        """See `Backend.run_kept`: all of it."""
        return self.run(lr)

    def run_all(self, inputs: Iterable[Values]) -> Iterator[Values]:
        """Run each, in order, with copies beside the network. Other threads wait until the last is taken.

        Raises:
            BackendMemoryError: one did not fit in memory; those before it that were not yielded are lost.
        """
        begun: deque[tuple[Lane, Size, bool]] = deque()
        with self._lock:
            self._running_in = threading.get_ident()
            try:
                for number, lr in enumerate(inputs):
                    while begun and _size_of(lr) != self._size:
                        yield self._finish(*begun.popleft())
                    begun.append(self._begin(number % LANES, lr))
                    if len(begun) == LANES:  # before the next is read: no more than these are held
                        yield self._finish(*begun.popleft())
                while begun:
                    yield self._finish(*begun.popleft())
            finally:
                self._running_in = None
                if not self._closed:
                    with self._device.current():
                        for lane, _, _ in begun:
                            lane.synchronize()

    def cancel(self) -> None:
        """See `Backend.cancel`: what runs on the device cannot be stopped, and takes no longer than a tile."""

    def free_memory(self) -> int:
        """See `Backend.free_memory`."""
        return self._device.free_memory()

    def close(self) -> None:
        """See `Backend.close`."""
        # A `run_all` that this thread left in the middle holds the lock: waiting for it would never end.
        own = self._running_in == threading.get_ident()
        if not own:
            self._lock.acquire()
        try:
            self._closed = True
            self._free()
        finally:
            if not own:
                self._lock.release()

    def _begin(self, number: int, lr: Values) -> tuple[Lane, Size, bool]:
        """Queue all that makes the result of an input; the result's size, and whether it is bytes."""
        if self._closed:
            raise closed(self.metadata)
        size = n, height, width = _size_of(lr)
        large = n, self.metadata.scale * height, self.metadata.scale * width
        self._trt.said.clear()
        with self._device.current():
            if size != self._size:
                self._size = None
                for lane in self._held.lanes:
                    lane.forget()
            engine = self._fitting(size)
            if self._size is None:
                if not engine.context.set_input_shape(engine.input, (n, 3, height, width)):
                    raise EngineError(self._trt.why(f"refuses an input of size {size}"))
                self._check_output(engine, size, large)
                self._size = size
            if not self._held.lanes:
                self._held.lanes = self._device.lanes(LANES)
            lane = self._held.lanes[number]
            sr = lane.address(engine.output, FLOAT * _values(large))
            if lr.dtype == np.uint8 and self._pixels is not None:
                values = lane.address(engine.input, FLOAT * _values(size))
                pixels = lane.address(PIXELS_OUT, _values(large) + 1)
                self._pixels.to_map(lane.upload(PIXELS_IN, lr), values, size, lane.stream)
                self._run(engine, lane, values, sr)
                self._pixels.to_pixels(sr, pixels, large, lane.stream)
                lane.download(PIXELS_OUT, _values(large) + 1)
                return lane, large, True
            self._run(engine, lane, lane.upload(engine.input, lr), sr)
            lane.download(engine.output, FLOAT * _values(large))
            return lane, large, False

    def _run(self, engine: LoadedEngine, lane: Lane, lr: int, sr: int) -> None:
        """Queue the network itself, from address to address."""
        engine.context.set_tensor_address(engine.input, lr)
        engine.context.set_tensor_address(engine.output, sr)
        if self._last is not None:
            lane.wait_for(self._last)  # a context runs one input at a time

        def enqueue() -> bool:
            return engine.context.execute_async_v3(lane.stream)

        # A lane's addresses stay, so that a graph of its own can be replayed; TensorRT-RTX makes graphs by itself.
        if not (lane.enqueue(enqueue) if self._flavor == "tensorrt" else enqueue()):
            raise self._trt.failure(f"failed on an input of size {self._size}", self._source)
        lane.mark()
        self._last = lane

    def _finish(self, lane: Lane, size: Size, as_bytes: bool) -> Values:
        n, height, width = size
        engine = self._held.engine
        if self._closed or engine is None:
            raise closed(self.metadata)
        with self._device.current():
            if not as_bytes:
                return lane.result(engine.output, FLOAT * _values(size)).view(np.float32).reshape(n, 3, height, width)
            pixels = lane.result(PIXELS_OUT, _values(size) + 1)
        if pixels[-1]:
            raise non_finite(self.metadata)
        return pixels[:-1].reshape(n, height, width, 3)

    def _check_output(self, engine: LoadedEngine, size: Size, large: Size) -> None:
        """Check the output's size: a larger one would be written past the memory that is set apart for it."""
        found, expected = tuple(engine.context.get_tensor_shape(engine.output)), (large[0], 3, *large[1:])
        if found != expected:
            raise EngineError(
                f"The engine of {self._source} gives shape {found} for an input of size {size}; {expected} was "
                f"expected of scale {self.metadata.scale}. For a foreign model give its true --scale; an engine of "
                f"another model is built again by: ignn build {self._source}"
            )

    def _fitting(self, size: Size) -> LoadedEngine:
        """Return an engine that takes that input."""
        engine = self._held.engine
        if engine is not None and engine.profile.holds(size):
            return engine
        if self._fixed:
            raise EngineError(
                f"The engine takes {self._profile}; {'x'.join(map(str, size))} does not fit. Use smaller tiles (--tile "
                f"with {self.metadata.halo} pixels of context on each side), or build it for more: "
                f"ignn build {self._source} --max {'x'.join(map(str, size))}"
            )
        n, height, width = size
        maximum = (n, side_to_build(height), side_to_build(width))
        wanted = Profile((1, 1, 1), maximum, maximum)
        if engine is not None:  # its memory is free before more is taken
            engine.free()
            self._held.engine = None
        key = EngineKey(
            model_sha256=hashlib.sha256(self._model).hexdigest(),
            plugin_sha256=hashlib.sha256(self._plugin.read_bytes()).hexdigest() if self._plugin else "",
            tensorrt=f"{self._flavor} {self._trt.module.__version__}",
            gpu=self._device.name,
            compute_capability=self._device.compute_capability,
            profile=str(wanted),
        )
        cached = self._cache.load(key)
        if cached is not None:
            try:
                return self._use(cached)
            except EngineError as error:
                logger.warning("%s Building it again.", error)
        built = self._build(wanted)
        self._cache.store(key, built)
        return self._use(built)

    def _build(self, profile: Profile) -> bytes:
        logger.warning(
            "building an engine of %s for %s, inputs up to %s; it is kept in %s",
            self._source,
            self._device.name,
            "x".join(map(str, profile.maximum)),
            self._cache.folder,
        )
        request = BuildRequest(
            self._flavor,
            profile,
            plugin=self._plugin,
            plugin_inside=False,
            compute_capability=self._device.compute_capability if self._flavor == "tensorrt-rtx" else None,
        )
        with tempfile.TemporaryDirectory(prefix="ignn_engine_") as folder:
            path = Path(folder) / "engine"
            build_engine(self._model, request, path, source=self._source)
            return path.read_bytes()

    def _use(self, serialized: bytes) -> LoadedEngine:
        """Load an engine; call in `current()`."""
        self._size = None  # a new context knows no size yet
        device = f"{self._device.name} (compute capability {self._device.compute_capability})"
        built = f"; it was {self._facts.built_by}" if self._facts is not None and self._fixed else ""
        self._held.engine = LoadedEngine(self._trt, serialized, source=self._source, place=device, built=built)
        return self._held.engine


def _size_of(lr: Values) -> Size:
    """Return N, H, W of (N, H, W, 3) uint8 or (N, 3, H, W) float32."""
    n, height, width = lr.shape[:3] if lr.dtype == np.uint8 else (lr.shape[0], *lr.shape[2:])
    return n, height, width


def _values(size: Size) -> int:
    """Return how many values a picture of that size has."""
    n, height, width = size
    return 3 * n * height * width

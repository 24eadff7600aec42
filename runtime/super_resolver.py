"""The one public class: an image in, the same kind of image out, larger."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .backends.many import Devices, device_numbers, open_many
from .backends.opening import MOST_THREADS, check_device, find_model_file, open_backend, open_engine, tile_for
from .errors import InvalidImageError, UsageError
from .metadata import ModelMetadata
from .pictures import picture as pictures
from .tiles.network import TiledNetwork

if TYPE_CHECKING:
    from PIL import Image

    from .backends import Backend
    from .backends.ort import Provider
    from .pictures.read import ImageFile
    from .tiles.mapping import ResultIterator

Array = TypeVar("Array", bound=NDArray[Any])
PathLike = str | os.PathLike[str]


class SuperResolver:
    """Enlarges images with one network.

    One resolver may be called from many threads: the network runs for one of them at a time (it uses all cores, or the
    whole device, by itself), which also bounds the memory. In asyncio: `await asyncio.to_thread(resolver, image)`.

    The network's memory, on the host and on a device, is freed at the end of a `with` block, by `close()`, or when
    nothing refers to the resolver any more.

    Args:
        model: path of an ONNX file made by `ignn export`, or the name of a bundled model (`ignn models`);
            None: the bundled default, a x2 model. A path that ends in `.engine` is taken for `engine`.
        engine: path of an engine of `ignn build` or `trtexec`. `model` may be left out where the JSON that `ignn build`
            writes lies beside it. `tile="auto"` is then the largest tile that the engine takes.
        device: index of the NVIDIA GPU, for TensorRT and ONNX Runtime's `cuda`; of OpenVINO `CPU`, `GPU` or `GPU.1`.
            None: the first NVIDIA GPU; the CPU.
        devices: run on several NVIDIA GPUs at a time: their indices, or `all`. Tiles, also of different images in
            `map`, are dealt out to them; results keep their order and their values.
        backend: `ort` (ONNX Runtime); `tensorrt` or `tensorrt-rtx`, which build engines on first use and keep them; or
            `openvino`, for CPUs and Intel's GPUs.
        precision: what OpenVINO computes in: `fp32`, or `bf16` (bfloat16: faster on CPUs that have it, less exact;
            refused on others). None: `fp32`.
        providers: ONNX Runtime's providers in order: `cpu`, `cuda`, `tensorrt`, `tensorrt-rtx`, `openvino`, `webgpu`,
            or (name, options). Raises rather than run on another one. None: CUDA where this ONNX Runtime has it, else
            the CPU.
        tile: largest side of a tile in LR pixels. Tiling costs time (each tile computes its context again) and bounds
            memory; it does not change the result. `auto`: the tiles that compute least within the free memory; None:
            the whole image at once.
        halo: LR pixels of context around a tile. None: what makes tiles exact. Less is faster and approximate: tiles
            are then blended, and the log says so.
        self_ensemble: run the 8 flips and rotations and average: about 0.1 dB better, 8 times slower.
        threads: CPU threads of one run; None: all cores that the process may use.
        scale, value_range: of a model that `ignn export` did not make (`value_range` is `0..255` or `0..1`).
        max_pixels: largest input image that is decoded, in pixels; None: Pillow's own limit.

    Raises:
        ModelNotFoundError, ModelChecksumError, ModelLoadError, ModelMetadataError: about the model file.
        EngineError: the engine is damaged, or of another GPU, TensorRT or model.
        BackendUnavailableError, ProviderFallbackError: about what runs it.
        UsageError: an argument has a value that is not accepted.
    """

    def __init__(
        self,
        model: PathLike | None = None,
        *,
        engine: PathLike | None = None,
        device: int | str | None = None,
        devices: Devices | None = None,
        backend: Literal["ort", "tensorrt", "tensorrt-rtx", "openvino"] = "ort",
        precision: Literal["fp32", "bf16"] | None = None,
        providers: Sequence[Provider] | None = None,
        tile: int | Literal["auto"] | None = "auto",
        halo: int | None = None,
        self_ensemble: bool = False,
        threads: int | None = None,
        scale: int | None = None,
        value_range: str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if tile != "auto":
            _check_whole("tile", tile, 1, more="'auto', ")
        _check_whole("halo", halo, 0, 4096)
        _check_whole("max_pixels", max_pixels, 1)
        _check_whole("threads", threads, 1, MOST_THREADS)
        _check_whole("scale", scale, 1, 16)
        for name, value in (("model", model), ("engine", engine)):
            if not (value is None or isinstance(value, (str, os.PathLike))):
                raise UsageError(f"Invalid {name} ({value!r:.60}). A path is expected; `ignn models` lists names.")
        if engine is None and model is not None and Path(model).suffix == ".engine":
            model, engine = None, model
        check_device(backend, device, engine=engine is not None)
        if devices is not None:
            if device is not None:
                raise UsageError("device and devices say the same thing. Leave out one of them.")
            if backend == "openvino" and engine is None:
                raise UsageError("devices are NVIDIA GPUs; leave them out for backend 'openvino'.")
        numbers: Sequence[int | str | None] = [device] if devices is None else device_numbers(devices)
        if engine is not None:
            if providers is not None or threads is not None or precision is not None:
                raise UsageError("providers, threads and precision are others'; leave them out for an engine.")
            if backend == "openvino":
                raise UsageError("An engine runs in TensorRT. Leave out the backend, or the engine.")
            path = Path(engine)

            def open_one(number: int | str | None) -> Backend:
                one, self._fingerprint = open_engine(path, model, backend, int(number or 0), scale, value_range)
                return one
        else:
            path, source, self._fingerprint = find_model_file(model)
            if devices is not None and backend == "ort":
                if providers not in (None, ["cuda"]):
                    raise UsageError(
                        f"Invalid providers ({providers!r}). With devices ONNX Runtime takes ['cuda'] alone."
                    )
                providers = ["cuda"]

            def open_one(number: int | str | None) -> Backend:
                return open_backend(path, source, backend, providers, threads, scale, value_range, number, precision)

        opened = open_many(numbers, open_one)
        if tile == "auto":
            tile = tile_for(opened, halo) or tile
        self.network = TiledNetwork(opened, tile=tile, halo=halo, self_ensemble=self_ensemble)
        self._max_pixels = max_pixels

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the run under way, and free the network with its memory; closing again does nothing.

        A later call, and what is left of a `map`, raise `ClosedError`. What is known of the network stays readable.
        """
        self.network.backend.close()

    @property
    def metadata(self) -> ModelMetadata:
        """Facts about the network."""
        return self.network.metadata

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.network.metadata.scale

    @property
    def description(self) -> str:
        """What runs the network, and where, as text for people."""
        return self.network.backend.description

    @property
    def self_ensemble(self) -> bool:
        """Whether every result is the mean over the 8 flips and turns."""
        return self.network.self_ensemble

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model or engine file, in hex."""
        return self._fingerprint

    @property
    def settings(self) -> str:
        """Everything that decides a result's values, except the input, as one string."""
        network = self.network
        tiles = f"tile={network.tile} halo={network.halo} self_ensemble={network.self_ensemble}"
        return f"{self.fingerprint} {self.metadata} {self.description} {tiles}"

    @overload
    def __call__(self, image: PathLike | bytes | BinaryIO) -> Image.Image: ...
    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, image: Array) -> Array: ...
    def __call__(self, image: Any) -> Any:
        """Enlarge an image.

        Args:
            image: a path; the bytes of an image file, or a file opened in binary mode; a PIL image; or an array
                (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), grey, RGB or RGBA, of uint8 (0..255), uint16 (0..65535) or
                floating point (0..1).

        Returns:
            The same kind of image, `scale` times as large: a PIL image for a file, an array of the same type and
            channels for an array.

        Raises:
            ImageReadError, ImageTooLargeError: the file cannot be read.
            InvalidImageError: no image, or one of wrong shape, type or values.
            ClosedError: after `close()`.
            DeviceMemoryError: there is no memory for the smallest tile, or for the result.
            NonFiniteOutputError: the network gave NaN or infinity.
        """
        from .pictures.kinds import as_kind

        return as_kind(self.upscale(self._picture(image)), image)

    def _picture(self, image: Any) -> pictures.Picture:  # noqa: ANN401 - what a call takes
        from .pictures.kinds import picture_of

        return picture_of(image, max_pixels=self._max_pixels)

    def map(self, images: Iterable[Any], *, batch: int = 1, ahead: int = 2) -> ResultIterator:
        """Enlarge a stream of images, each of any kind that a call takes.

        One thread decodes and another runs the network, ahead of the caller. An image that fails raises from `next()`
        in its place; the next `next()` goes on with the image after it.

        Args:
            images: any iterable, also an endless one; it is read in the decoding thread.
            batch: how many tiles of equal size, also of different images, run at once. More than 1 pays on a GPU and
                costs memory accordingly; `tile="auto"` allows for it.
            ahead: how many images, beside two batches, may be decoded, computed or waiting for the caller: it bounds
                the memory.

        Returns:
            An iterator over the results, in order. Use it in a `with` block, or call `close()`, to stop early.
        """
        for name, value in (("batch", batch), ("ahead", ahead)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"Invalid {name} ({value!r}). Whole numbers from 1 are supported.")
        if isinstance(images, (str, bytes, os.PathLike)) or not hasattr(images, "__iter__"):
            raise UsageError(f"Invalid images ({images!r:.60}). An iterable of images is expected, such as a list.")
        from .pictures.kinds import as_kind
        from .tiles.mapping import ResultIterator

        return ResultIterator(self.network, images, self._picture, as_kind, batch=batch, ahead=ahead)

    def upscale(self, source: pictures.Picture) -> pictures.Picture:
        """Enlarge one decoded picture; see `runtime.pictures.picture`."""
        convert = self.network.converter(source.color.dtype, grey=source.is_grey)
        return pictures.enlarged(source, self.network.run(pictures.network_input(source), convert), self.scale)

    def upscale_file(self, content: ImageFile, *, tile_done: Callable[[], None] = lambda: None) -> ImageFile:
        """Enlarge every frame of a decoded image file; see `runtime.pictures.read.read_file`.

        Args:
            content: the file.
            tile_done: called after each tile, in the thread that runs the network.
        """
        from .tiles.mapping import ResultIterator

        with ResultIterator(
            self.network,
            content.frames,
            lambda frame: frame,
            lambda large, _: large,
            progress=lambda frame, done, total: tile_done(),
        ) as frames:
            return replace(content, frames=list(frames))

    def super_resolve(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network itself.

        Args:
            lr: (H, W, 3) RGB 0..255.

        Returns:
            (scale * H, scale * W, 3) float32 RGB 0..255, not clamped and not rounded.

        Raises:
            InvalidImageError: another shape, or no numbers.
        """
        try:
            lr = np.asarray(lr, np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidImageError(f"Invalid input of the network: {error}. (H, W, 3) floats are expected.") from error
        if lr.ndim != 3 or lr.shape[2] != 3 or lr.size == 0:
            raise InvalidImageError(f"Invalid shape {lr.shape} for the network. (H, W, 3) is expected.")
        return self.network.run(lr, lambda sr: sr)


def _check_whole(name: str, value: object, least: int, most: int | None = None, *, more: str = "") -> None:
    """Check that an argument is None or a whole number from `least` to `most`."""
    if value is None or (isinstance(value, Integral) and least <= int(value) and (most is None or int(value) <= most)):
        return
    numbers = f"whole numbers from {least}" + (f" to {most}" if most is not None else "")
    raise UsageError(f"Invalid {name} ({value!r}). Supported values are None, {more}{numbers}.")

"""The one public class: an image in, the same kind of image out, larger."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from runtime import picture as pictures
from runtime.backends import BackendMemoryError, Values, non_finite
from runtime.backends.opening import open_backend, read_model
from runtime.errors import DeviceMemoryError, UsageError
from runtime.metadata import ModelMetadata
from runtime.tiling import Composer, Convert, Segment, Tile, TilePlan, largest_tile, plan_tiles, split

if TYPE_CHECKING:
    from PIL import Image

    from runtime.backends.ort import Provider
    from runtime.image_io import ImageFile
    from runtime.mapping import Pending, ResultIterator

logger = logging.getLogger("ignn")

MINIMUM_TILE = 32
"""Smallest tile, in LR pixels, that running out of memory leads to."""

MEMORY_SHARE = 0.6
"""Share of the free memory that `tile="auto"` uses: the rest is for the picture itself and for other programs."""

Array = TypeVar("Array", bound=NDArray[Any])
PathLike = str | os.PathLike[str]


class SuperResolver:
    """Enlarges images with one network.

    One resolver may be called from many threads: the network runs for one of them at a time (it uses all cores, or the
    whole device, by itself), which also bounds the memory. In asyncio: `await asyncio.to_thread(resolver, image)`.

    Args:
        model: path of an ONNX file made by `ignn export`, or the name of a bundled model (`ignn models`);
            None: the bundled default, a x2 model.
        backend: `ort` (ONNX Runtime); `tensorrt` or `tensorrt-rtx`, which build engines on first use and keep them; or
            `auto`, which is ONNX Runtime.
        providers: ONNX Runtime's providers in order: `cpu`, `cuda`, `tensorrt`, `tensorrt-rtx`, or (name, options).
            Raises rather than run on another one. None: CUDA where this ONNX Runtime has it, else the CPU.
        tile: largest side of a tile in LR pixels. Tiling costs time (each tile computes its context again) and bounds
            memory; it does not change the result. None: the whole image at once; `auto`: the largest tile that fits
            the memory that is free.
        halo: LR pixels of context around a tile. None: what makes tiles exact. Less is faster and approximate: tiles
            are then blended, and the log says so.
        self_ensemble: run the 8 flips and rotations and average: about 0.1 dB better, 8 times slower.
        threads: CPU threads of one run; None: all cores.
        scale, value_range: of a model that `ignn export` did not make (`value_range` is `0..255` or `0..1`).
        max_pixels: largest input image that is decoded, in pixels; None: Pillow's own limit.

    Raises:
        ModelNotFoundError, ModelChecksumError, ModelLoadError, ModelMetadataError: about the model file.
        BackendUnavailableError, ProviderFallbackError: about what runs it.
        UsageError: an argument has a value that is not accepted.
    """

    def __init__(
        self,
        model: PathLike | None = None,
        *,
        backend: Literal["auto", "ort", "tensorrt", "tensorrt-rtx"] = "auto",
        providers: Sequence[Provider] | None = None,
        tile: int | Literal["auto"] | None = None,
        halo: int | None = None,
        self_ensemble: bool = False,
        threads: int | None = None,
        scale: int | None = None,
        value_range: str | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if tile is not None and tile != "auto" and not (isinstance(tile, int) and tile >= 1):
            raise UsageError(f"Invalid tile ({tile!r}). Supported values are None, 'auto' and whole numbers from 1.")
        if halo is not None and not 0 <= halo <= 4096:
            raise UsageError(f"Invalid halo ({halo!r}). Supported values are None and 0 to 4096.")
        if max_pixels is not None and max_pixels < 1:
            raise UsageError(
                f"Invalid max_pixels ({max_pixels!r}). Supported values are None and whole numbers from 1."
            )
        content, source = read_model(model)
        self._fingerprint = hashlib.sha256(content).hexdigest()
        self._backend = open_backend(content, source, backend, providers, threads, scale, value_range)
        self._tile, self._halo, self._self_ensemble = tile, halo, self_ensemble
        self._max_pixels = max_pixels
        # Rounded values are not for averaging.
        self._as_bytes = self._backend.takes_bytes and not self_ensemble and not self._approximate
        self._tile_limit: int | None = None  # set when memory ran out once
        self._warned = False

    @property
    def metadata(self) -> ModelMetadata:
        """Facts about the network."""
        return self._backend.metadata

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self._backend.metadata.scale

    @property
    def description(self) -> str:
        """What runs where, for people."""
        return self._backend.description

    @property
    def self_ensemble(self) -> bool:
        """Whether every result is a mean over flips and turns."""
        return self._self_ensemble

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model file, in hex."""
        return self._fingerprint

    @overload
    def __call__(self, image: PathLike) -> Image.Image: ...
    @overload
    def __call__(self, image: Image.Image) -> Image.Image: ...
    @overload
    def __call__(self, image: Array) -> Array: ...
    def __call__(self, image: Any) -> Any:
        """Enlarge an image.

        Args:
            image: a path; a PIL image; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), grey, RGB or RGBA, of
                uint8 (0..255), uint16 (0..65535) or floating point (0..1).

        Returns:
            The same kind of image, `scale` times as large: a PIL image for a path, an array of the same type and
            channels for an array.

        Raises:
            ImageReadError, ImageTooLargeError: the file cannot be read.
            InvalidImageError: wrong shape, type or values.
            DeviceMemoryError: memory ran out with the smallest tile.
            NonFiniteOutputError: the network gave NaN or infinity.
        """
        return _as_kind(self.upscale(self._picture(image)), image)

    def _picture(self, image: Any) -> pictures.Picture:  # noqa: ANN401 - what a call takes
        if isinstance(image, (str, os.PathLike)):
            from runtime import image_io

            return image_io.read_still(Path(image), max_pixels=self._max_pixels)
        if isinstance(image, np.ndarray):
            return pictures.from_array(image)
        return pictures.from_pil(image)

    def map(self, images: Iterable[Any], *, batch: int = 1, ahead: int = 2) -> ResultIterator:
        """Enlarge a stream of images, each of any kind that a call takes.

        A thread takes images from the iterator and computes ahead of the caller, until `ahead` results wait. An image
        that fails raises from `next()` in its place; the next `next()` goes on with the image after it.

        Args:
            images: any iterable, also an endless one; it is read in that thread.
            batch: how many tiles of equal size, also of different images, run at once. More than 1 pays on a GPU and
                costs memory accordingly; `tile="auto"` allows for it.
            ahead: results that may wait for the caller.

        Returns:
            An iterator over the results, in order. Use it in a `with` block, or call `close()`, to stop early.
        """
        for name, value in (("batch", batch), ("ahead", ahead)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"Invalid {name} ({value!r}). Whole numbers from 1 are supported.")
        from runtime.mapping import ResultIterator

        return ResultIterator(self, images, batch=batch, ahead=ahead)

    def upscale(self, source: pictures.Picture) -> pictures.Picture:
        """Enlarge one decoded picture; see `runtime.picture`."""
        sr = self._super_resolve(
            pictures.network_input(source), self.converter(source.color.dtype, grey=source.is_grey)
        )
        return pictures.enlarged(source, sr, self.scale)

    def converter(self, dtype: np.dtype[Any], *, grey: bool) -> Convert:
        """What makes a picture's values of the network's, after a look at them."""

        def convert(sr: Values) -> NDArray:
            if sr.dtype == np.uint8:  # as the picture's: the backend has looked at them
                return sr
            if not np.isfinite(sr).all():
                raise non_finite(self.metadata)
            return pictures.quantize(sr, dtype, grey=grey)

        return convert

    def upscale_file(self, content: ImageFile) -> ImageFile:
        """Enlarge every frame of a decoded image file; see `runtime.image_io.read_file`."""
        return replace(content, frames=[self.upscale(frame) for frame in content.frames])

    def super_resolve(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network itself: (H, W, 3) float32 RGB 0..255 in, (scale*H, scale*W, 3) out, not clamped, not rounded."""
        return self._super_resolve(np.asarray(lr, np.float32), lambda sr: sr)

    def plan(self, height: int, width: int, *, batch: int = 1, most_bytes: int | None = None) -> TilePlan:
        """How an image of that size will be cut, if `batch` tiles run at once in at most `most_bytes` of memory."""
        tile = self._tile
        if tile == "auto":
            budget = int(self._backend.free_memory() * MEMORY_SHARE / batch)
            if most_bytes is not None:
                budget = min(budget, most_bytes)
            tile = largest_tile(
                height, width, self.metadata, crop_pixels=budget // self.metadata.bytes_per_pixel, halo=self._halo
            )
            if tile is not None:
                tile = max(tile, MINIMUM_TILE)
        if self._tile_limit is not None:
            tile = min(tile or self._tile_limit, self._tile_limit)
        plan = plan_tiles(height, width, self.metadata, tile=tile, halo=self._halo)
        if len(plan) > 1 and self._approximate and not self._warned:
            self._warned = True
            logger.warning(
                "tiles are approximate: halo %s, exact from %s on",
                self.metadata.halo if self._halo is None else self._halo,
                self.metadata.halo if self.metadata.exact else "an unknown size",
            )
        return plan

    @property
    def _approximate(self) -> bool:
        """Whether tiles are blended, because they are not exact."""
        return not self.metadata.exact or (self._halo is not None and self._halo < self.metadata.halo)

    def _super_resolve(self, lr: Values, convert: Convert) -> NDArray:
        if not self._self_ensemble:
            return self._tiled(lr, convert)
        total: NDArray[np.float32] | None = None
        # Tiles are cut after the flip: the patch grid starts at the upper left corner of what the network sees.
        for turn in range(4):
            for flip in (False, True):
                turned = np.rot90(lr, turn)
                sr = self._tiled(turned[:, ::-1] if flip else turned, lambda values: values)
                sr = np.rot90(sr[:, ::-1] if flip else sr, -turn)
                total = sr.copy() if total is None else np.add(total, sr, out=total)
        assert total is not None
        return convert(total / np.float32(8))

    def _tiled(self, lr: Values, convert: Convert) -> NDArray:
        plan = self.plan(*lr.shape[:2])
        composer = Composer(plan, self.scale, convert)
        if len(plan) == 1:
            tile = next(iter(plan))
            return composer.add(tile, self.run_tile(lr, tile))[0][1]
        sr: NDArray | None = None
        for tile, result in self._run_tiles(lr, list(plan)):
            for first, band in composer.add(tile, result):
                if sr is None:
                    shape = (plan.height * self.scale, plan.width * self.scale, *band.shape[2:])
                    sr = np.empty(shape, band.dtype)
                sr[first : first + len(band)] = band
        assert sr is not None
        return sr

    def _run_tiles(self, lr: Values, tiles: list[Tile]) -> Iterator[tuple[Tile, Values]]:
        """The network on each tile's crop; alone, and smaller, from the first on that memory does not allow."""

        def crop(tile: Tile) -> Values:
            return lr[tile.row.crop_start : tile.row.crop_stop, tile.column.crop_start : tile.column.crop_stop]

        done = 0
        try:
            results = self._backend.run_all(self._input(crop(tile)[None]) for tile in tiles)
            for done, sr in enumerate(results, start=1):
                yield tiles[done - 1], self._output(sr)[0]
        except BackendMemoryError:
            for tile in tiles[done:]:
                yield tile, self.run_tile(crop(tile), tile)

    def run_tile(self, crop: Values, tile: Tile) -> Values:
        """The network on one crop, (H, W, 3) uint8 or float32 0..255; smaller tiles where memory runs out.

        The result is uint8, or float32 not clamped, by the backend.

        What lies outside the tile is not meaningful in the result after memory ran out.
        """
        try:
            return self._run(crop[None])[0]
        except BackendMemoryError as error:
            row, column = tile.row, tile.column
            side = max(row.stop - row.start, column.stop - column.start)
            half = max(MINIMUM_TILE, -(-side // 2))
            halo = self.metadata.halo if self._halo is None else self._halo
            # The crop is to its parts what the image is to its tiles: its own context is enough for theirs.
            rows = self._parts(row.start - row.crop_start, row.stop - row.crop_start, len(crop), half, halo)
            columns = self._parts(
                column.start - column.crop_start, column.stop - column.crop_start, crop.shape[1], half, halo
            )
            parts = [Tile(r, c) for r in rows for c in columns]
            if max(part.crop_pixels for part in parts) >= crop.shape[0] * crop.shape[1]:
                raise DeviceMemoryError(
                    f"Out of memory on a crop of {crop.shape[1]} x {crop.shape[0]} pixels; no smaller tile (down to "
                    f"{MINIMUM_TILE}) needs less: {error}. Free memory, or run elsewhere (--provider cpu)."
                ) from error
            if self._tile_limit is None or half < self._tile_limit:
                self._tile_limit = half
                logger.warning("out of memory with a tile of %d: going on with %d", side, half)
            sr = np.zeros((len(crop) * self.scale, crop.shape[1] * self.scale, 3), self._kind(crop))
            for part in parts:
                r, c, s = part.row, part.column, self.scale
                result = self.run_tile(crop[r.crop_start : r.crop_stop, c.crop_start : c.crop_stop], part)
                sr[r.start * s : r.stop * s, c.start * s : c.stop * s] = result[
                    (r.start - r.crop_start) * s : (r.stop - r.crop_start) * s,
                    (c.start - c.crop_start) * s : (c.stop - c.crop_start) * s,
                ]
            return sr

    def run_batch(self, crops: list[Values], tiles: list[Tile]) -> list[Values]:
        """The network on crops of equal size at once; one by one where memory runs out."""
        if len(crops) > 1:
            try:
                return self._run(np.stack(crops))
            except BackendMemoryError:
                logger.warning("out of memory with a batch of %d: going on one by one", len(crops))
        return [self.run_tile(crop, tile) for crop, tile in zip(crops, tiles, strict=True)]

    def prepare(self, item: Pending, batch: int = 1) -> None:
        """Decode and cut an image of `map`."""
        if batch == 1:  # nothing to share: `complete` runs it as a call does, before the next is taken
            item.source = self._picture(item.image)
            return
        # The caller may fill its array again when it is asked for the next image.
        source = self._picture(item.image.copy() if isinstance(item.image, np.ndarray) else item.image)
        item.source, item.lr = source, pictures.network_input(source)
        plan = self.plan(*item.lr.shape[:2], batch=batch)
        item.composer, item.tiles = (
            Composer(plan, self.scale, self.converter(source.color.dtype, grey=source.is_grey)),
            deque(plan),
        )

    def complete(self, item: Pending) -> None:
        """Make the result of an image of `map`, whose tiles are done, or that is done as a whole."""
        assert item.source is not None
        if item.composer is None:
            large = self.upscale(item.source)
        else:
            large = pictures.enlarged(item.source, np.concatenate(item.bands), self.scale)
        item.result = _as_kind(large, item.image)
        item.lr, item.composer, item.bands = None, None, []

    def _parts(self, start: int, stop: int, length: int, tile: int, halo: int) -> list[Segment]:
        if length // self.metadata.tile_multiple <= self.metadata.window:
            return [Segment(start, stop, 0, length)]
        return split(start, stop, length, tile, halo, self.metadata)

    def _run(self, crops: Values) -> list[Values]:
        """(N, H, W, 3) 0..255 in, (scale*H, scale*W, 3) each out, by the backend's layout and value range."""
        return self._output(self._backend.run(self._input(crops)))

    def _kind(self, crops: Values) -> type[np.uint8] | type[np.float32]:
        """The type in which they go to the backend, and their results come back."""
        return np.uint8 if crops.dtype == np.uint8 and self._as_bytes else np.float32

    def _input(self, crops: Values) -> Values:
        if self._kind(crops) is np.uint8:
            return crops
        values = crops.astype(np.float32, copy=False).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values / np.float32(self.metadata.unit))

    def _output(self, sr: Values) -> list[Values]:
        if sr.dtype == np.uint8:
            return list(sr)
        return [one.transpose(1, 2, 0) * np.float32(self.metadata.unit) for one in sr]


def _as_kind(picture: pictures.Picture, image: Any) -> Any:  # noqa: ANN401 - the kind that `image` is of
    return pictures.to_array(picture, like=image) if isinstance(image, np.ndarray) else pictures.to_pil(picture)

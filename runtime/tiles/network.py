"""A network on images of any size: the one loop over tiles, and smaller tiles where memory runs out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, BackendMemoryError, Values, non_finite
from ..errors import DeviceMemoryError
from ..metadata import ModelMetadata
from ..pictures.picture import quantize
from .budget import MINIMUM_TILE, affordable_tile, result_bytes, work
from .composer import Composer, Convert
from .images import Crop, ReadCrop, TiledImage, WholeImage, batches
from .plan import Segment, Tile, TilePlan, TileSize, plan_tiles, split

logger = logging.getLogger("ignn")


class TiledNetwork:
    """A network that takes images of any size; `SuperResolver` explains the arguments.

    Attributes:
        backend: what runs the network.
        tile, halo, self_ensemble: as given.
        host_share: share of the free host memory that the network may think its own; the rest is of other processes.
    """

    def __init__(
        self, backend: Backend, *, tile: int | Literal["auto"] | None, halo: int | None, self_ensemble: bool
    ) -> None:
        self.backend = backend
        self.tile, self.halo, self.self_ensemble = tile, halo, self_ensemble
        self.host_share = 1.0
        # Rounded values are not for averaging.
        self._as_bytes = backend.takes_bytes and not self_ensemble and not self._approximate
        # What did not fit in memory is not tried again: both limits only ever fall.
        self._tile_limit: int | None = None
        self._batch_limit: int | None = None
        self._warned = False
        self._free_on_device: int | None = None

    @property
    def metadata(self) -> ModelMetadata:
        """Facts about the network."""
        return self.backend.metadata

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel."""
        return self.metadata.scale

    def plan(
        self, height: int, width: int, *, batch: int = 1, kept_bytes: int = 0, most_bytes: int | None = None
    ) -> TilePlan:
        """Cut an image of `height` x `width` LR pixels; the rest as in `affordable_tile`, whose error it may raise."""
        tile: TileSize | Literal["auto"] | None = self.tile
        if tile == "auto":
            tile = affordable_tile(
                self.backend,
                height,
                width,
                free=self._free_memory(),
                halo=self.halo,
                batch=batch,
                kept_bytes=kept_bytes,
                most_bytes=most_bytes,
            )
        limit = self._tile_limit
        if limit is not None:
            tile = (min(tile[0], limit), min(tile[1], limit)) if isinstance(tile, tuple) else min(tile or limit, limit)
        plan = plan_tiles(height, width, self.metadata, tile=tile, halo=self.halo)
        if len(plan) > 1:
            ratio = work(plan, self.backend.stages) / work(plan_tiles(height, width, self.metadata, tile=None), None)
            logger.info("%d tiles, crops of up to %d pixels: %.2f times the work of the whole picture",
                        len(plan), plan.crop_pixels, ratio)  # fmt: skip
        if len(plan) > 1 and self._approximate and not self._warned:
            self._warned = True
            logger.warning(
                "tiles are approximate: halo %s, exact from %s on",
                self._context,
                self.metadata.halo if self.metadata.exact else "an unknown size",
            )
        return plan

    def run(self, lr: Values, convert: Convert) -> NDArray:
        """Run the network on a whole image.

        Args:
            lr: (H, W, 3) RGB 0..255, uint8 or float32.
            convert: converts the network's values, which are not clamped, to the result's.

        Returns:
            (scale * H, scale * W, C), of the type that `convert` gives.
        """
        image = self.whole_image(lr, convert)
        for _ in self.run_tiles(image.images()):
            pass
        return image.result()

    def bands(
        self, read_crop: ReadCrop, plan: TilePlan, convert: Convert, progress: Callable[[int, int], None]
    ) -> Iterator[NDArray]:
        """Run the network on an image that is read piece by piece; yield bands of rows from top to bottom.

        Args:
            read_crop: returns a tile's crop; called in the plan's order. At most three crops are kept at a time.
            plan: how the image is cut.
            convert: converts the network's values to the result's.
            progress: called with (tiles done, tiles in all).
        """
        finished: deque[NDArray] = deque()
        composer = Composer(plan, self.scale, convert)
        image = TiledImage(plan, read_crop, composer, lambda first, band: finished.append(band))
        for _ in self.run_tiles([image]):
            while finished:
                yield finished.popleft()
            progress(image.tiles_done, len(plan))
        if image.error is not None:
            raise image.error

    def whole_image(self, lr: Values, convert: Convert, *, batch: int = 1) -> WholeImage:
        """Prepare an image in memory for `run_tiles`; arguments as those of `run` and `plan`."""
        kept_bytes = result_bytes(
            lr.shape[0] * lr.shape[1] * self.scale**2,
            as_bytes=bool(lr.dtype == np.uint8),
            self_ensemble=self.self_ensemble,
        )

        def make_plan(height: int, width: int) -> TilePlan:
            nonlocal kept_bytes
            plan = self.plan(height, width, batch=batch, kept_bytes=kept_bytes)
            kept_bytes = 0  # of the turns after the first: it is taken by then
            return plan

        return WholeImage(lr, make_plan, self.scale, convert, self_ensemble=self.self_ensemble)

    def converter(self, dtype: np.dtype[Any], *, grey: bool) -> Convert:
        """Return the function that checks the network's values and rounds them to a picture's type."""

        def convert(sr: Values) -> NDArray:
            if sr.dtype == np.uint8:  # the backend has checked and rounded them
                return sr
            if not np.isfinite(sr).all():
                raise non_finite(self.metadata)
            return quantize(sr, dtype, grey=grey)

        return convert

    def run_tiles(self, images: Iterable[TiledImage], *, batch: int = 1) -> Iterator[TiledImage]:
        """Run all tiles of the images, as many at once as `batch` and memory allow; yield an image after each tile.

        The backend copies some crops while it runs another, also of different images. An image that fails keeps its
        error; the others go on.
        """
        groups = batches(images, lambda: min(batch, self._batch_limit or batch))
        for crop, result in self._results(groups):
            if crop.image.error is None:
                crop.image.add(crop.tile, result)
                yield crop.image

    def _results(self, groups: Iterator[list[Crop]]) -> Iterator[tuple[Crop, Values | Exception]]:
        """Run groups of equal crops, in order; yield each crop's result or error."""
        in_flight: deque[list[Crop]] = deque()

        def inputs() -> Iterator[Values]:
            for group in groups:
                in_flight.append(group)
                if self._parts(group[0], self._tile_limit):
                    return  # it is run in parts, after the results of those before it
                yield self._input(group)

        while True:
            failure: Exception | None = None
            try:
                for sr in self._run_all(inputs(), in_flight):
                    yield from zip(in_flight.popleft(), self._output(sr), strict=True)
            except BackendMemoryError:
                self._reduce_batch(max(map(len, in_flight)))
            except Exception as error:
                failure = error
            if not in_flight:
                if failure is not None:
                    raise failure
                return
            crops = [crop for group in in_flight for crop in group]
            in_flight.clear()
            if failure is not None and len({id(crop.image) for crop in crops}) == 1:
                yield crops[0], failure
                continue
            for crop in crops:  # which of them failed is not known
                yield crop, self._run_alone(crop)

    def _run_all(self, inputs: Iterator[Values], in_flight: deque[list[Crop]]) -> Iterator[Values]:
        """Run groups of crops as their inputs are read; of a large one alone only what is kept of it."""
        if not self.backend.stages:
            return self.backend.run_all(inputs)
        return (self._run_group(lr, in_flight[-1]) for lr in inputs)

    def _run_group(self, lr: Values, group: list[Crop]) -> Values:
        if len(group) == 1 and self.backend.stages:
            return self.backend.run_kept(lr, group[0].tile.kept)
        if self.backend.stages and lr[0, 0].size > self.backend.stages.whole_pixels:
            kept = (crop.tile.kept for crop in group)
            return np.concatenate([self.backend.run_kept(one[None], box) for one, box in zip(lr, kept, strict=True)])
        return self.backend.run(lr)

    def _run_alone(self, crop: Crop) -> Values | Exception:
        try:
            return self._run_crop(crop)
        except Exception as error:
            return error

    def _run_crop(self, crop: Crop) -> Values:
        """Run one crop, in smaller parts if memory runs out: its result then has no meaning outside the tile."""
        parts = self._parts(crop, self._tile_limit)
        if parts:
            return self._join(crop, parts)
        try:
            return self._output(self._run_group(self._input([crop]), [crop]))[0]
        except BackendMemoryError as error:
            half = max(MINIMUM_TILE, -(-crop.tile.side // 2))
            parts = self._parts(crop, half)
            if not parts:
                height, width = crop.values.shape[:2]
                raise DeviceMemoryError(
                    f"Out of memory on a crop of {width} x {height} pixels; no smaller tile (down to {MINIMUM_TILE}) "
                    f"needs less: {error}. Free memory, or run elsewhere (--provider cpu)."
                ) from error
        if self._tile_limit is None or half < self._tile_limit:
            self._tile_limit = half
            logger.warning("out of memory with a tile of %d: going on with %d", crop.tile.side, half)
        return self._join(crop, parts)

    def _parts(self, crop: Crop, tile: int | None) -> list[Tile]:
        """Cut a crop into tiles of at most `tile`, in the crop's pixels; into none if they take no less memory."""
        if tile is None or crop.tile.side <= tile:
            return []

        def cut(segment: Segment) -> list[Segment]:
            # The crop is to its parts what the image is to its tiles: its own context is enough for theirs.
            length = segment.crop_length
            start = segment.start - segment.ramp_before - segment.crop_start
            stop = segment.stop + segment.ramp_after - segment.crop_start
            if length // self.metadata.tile_multiple <= self.metadata.window:
                return [Segment(start, stop, 0, length)]
            return split(start, stop, length, tile, self._context, self.metadata)

        parts = [Tile(row, column) for row in cut(crop.tile.row) for column in cut(crop.tile.column)]
        return parts if max(part.crop_pixels for part in parts) < crop.tile.crop_pixels else []

    def _join(self, crop: Crop, parts: list[Tile]) -> Values:
        """Run the parts of a crop, and join their results."""
        scale, sr = self.scale, None
        for part, result in self._results([Crop(crop.image, part, part.crop(crop.values))] for part in parts):
            if isinstance(result, Exception):
                raise result
            if sr is None:
                sr = np.zeros((len(crop.values) * scale, crop.values.shape[1] * scale, 3), result.dtype)
            row, column = part.tile.row, part.tile.column
            sr[row.start * scale : row.stop * scale, column.start * scale : column.stop * scale] = result[
                (row.start - row.crop_start) * scale : (row.stop - row.crop_start) * scale,
                (column.start - column.crop_start) * scale : (column.stop - column.crop_start) * scale,
            ]
        assert sr is not None
        return sr

    def _free_memory(self) -> int:
        """Return how many bytes the network may think free.

        On a device they are those before the first run: what a backend takes there it keeps, for its own next run.
        """
        if self.backend.on_host:
            return int(self.backend.free_memory() * self.host_share)
        if self._free_on_device is None:
            self._free_on_device = self.backend.free_memory()
        return self._free_on_device

    def _reduce_batch(self, size: int) -> None:
        """Halve the batch for the rest of the run, if it has more than one crop."""
        if size > 1:
            self._batch_limit = size // 2
            logger.warning("out of memory with a batch of %d: going on with %d", size, size // 2)

    @property
    def _context(self) -> int:
        """LR pixels around a tile that the network sees."""
        return self.metadata.halo if self.halo is None else self.halo

    @property
    def _approximate(self) -> bool:
        """Whether tiles are blended, because they are not exact."""
        return not self.metadata.exact or self._context < self.metadata.halo

    def _input(self, crops: list[Crop]) -> Values:
        """Stack equal crops for the backend: (N, H, W, 3) uint8, or (N, 3, H, W) float32 of the model's value range."""
        values = crops[0].values[None] if len(crops) == 1 else np.stack([crop.values for crop in crops])
        if values.dtype == np.uint8 and self._as_bytes:
            return values
        values = values.astype(np.float32, copy=False).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values / np.float32(self.metadata.unit))

    def _output(self, sr: Values) -> list[Values]:
        """Split the backend's output: (scale * H, scale * W, 3) each, 0..255, uint8 or float32 not clamped."""
        if sr.dtype == np.uint8:
            return list(sr)
        return [one.transpose(1, 2, 0) * np.float32(self.metadata.unit) for one in sr]

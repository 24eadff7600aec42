"""A network on images of any size: cut into tiles, run, and joined again; smaller tiles where memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, BackendMemoryError, Values
from ..errors import DeviceMemoryError
from ..metadata import ModelMetadata
from .plan import Composer, Convert, Segment, Tile, TilePlan, largest_tile, plan_tiles, split

logger = logging.getLogger("ignn")

MINIMUM_TILE = 32
"""Smallest tile, in LR pixels, that running out of memory leads to."""

MEMORY_SHARE = 0.6
"""Share of the free memory that `tile="auto"` uses: the rest is for the picture itself and for other programs."""


class TiledNetwork:
    """What `SuperResolver` runs; its arguments are explained there."""

    def __init__(
        self, backend: Backend, *, tile: int | Literal["auto"] | None, halo: int | None, self_ensemble: bool
    ) -> None:
        self.backend = backend
        self.self_ensemble = self_ensemble
        self._tile, self._halo = tile, halo
        # Rounded values are not for averaging.
        self._as_bytes = backend.takes_bytes and not self_ensemble and not self._approximate
        self._tile_limit: int | None = None  # set when memory ran out once
        self._warned = False

    @property
    def metadata(self) -> ModelMetadata:
        """Facts about the network."""
        return self.backend.metadata

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.metadata.scale

    def plan(self, height: int, width: int, *, batch: int = 1, most_bytes: int | None = None) -> TilePlan:
        """How an image of that size will be cut, if `batch` tiles run at once in at most `most_bytes` of memory."""
        tile = self._tile
        if tile == "auto":
            budget = int(self.backend.free_memory() * MEMORY_SHARE / batch)
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

    def run(self, lr: Values, convert: Convert) -> NDArray:
        """The network on a whole image, (H, W, 3) uint8 or float32 0..255; bands of its result go through `convert`."""
        if not self.self_ensemble:
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
            results = self.backend.run_all(self._input(crop(tile)[None]) for tile in tiles)
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

    def _parts(self, start: int, stop: int, length: int, tile: int, halo: int) -> list[Segment]:
        if length // self.metadata.tile_multiple <= self.metadata.window:
            return [Segment(start, stop, 0, length)]
        return split(start, stop, length, tile, halo, self.metadata)

    def _run(self, crops: Values) -> list[Values]:
        """(N, H, W, 3) 0..255 in, (scale*H, scale*W, 3) each out, by the backend's layout and value range."""
        return self._output(self.backend.run(self._input(crops)))

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

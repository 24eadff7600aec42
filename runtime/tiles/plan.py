"""Exact tiles: where tiles and their crops lie.

A tile is a rectangle of the LR image. The network runs on the tile's *crop*, which is the tile and `halo` LR pixels of
context, cut at the true image border; of the result only the tile is kept. With the model's own halo the result is that
of the whole image, because

- the halo covers everything that a kept pixel depends on,
- crop origins are multiples of twice the graph scale, so that query and key patches fall on the same pixels, and
- the crop has more key patches than the window in each tiled direction, so that the window's side stays what it is in
  the whole image. A direction with no more key patches than the window is not tiled.

With a smaller halo neighboring tiles overlap and are blended by a linear ramp, which is approximate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Box
from ..metadata import ModelMetadata

TileSize = int | tuple[int, int]
"""Largest side of a tile, or its largest height and width, in LR pixels."""


@dataclass(frozen=True)
class Segment:
    """One tile's extent in one direction, in LR pixels, half-open.

    Attributes:
        start, stop: what is kept.
        crop_start, crop_stop: what the network sees.
        ramp_before, ramp_after: how far the blend reaches to either side of `start` and `stop`; 0: no blend.
    """

    start: int
    stop: int
    crop_start: int
    crop_stop: int
    ramp_before: int = 0
    ramp_after: int = 0

    @property
    def crop_length(self) -> int:
        """LR pixels that the network sees."""
        return self.crop_stop - self.crop_start

    def weights(self, scale: int) -> NDArray[np.float32]:
        """Return blend weights of HR pixels from `start - ramp_before` to `stop + ramp_after`; neighbors' sum to 1."""
        weights = np.ones((self.stop + self.ramp_after - self.start + self.ramp_before) * scale, np.float32)
        for ramp, view in ((self.ramp_before * scale, weights), (self.ramp_after * scale, weights[::-1])):
            if ramp:
                view[: 2 * ramp] = (np.arange(2 * ramp, dtype=np.float32) + 0.5) / (2 * ramp)
        return weights


@dataclass(frozen=True)
class Tile:
    """One tile: its extent in both directions."""

    row: Segment
    column: Segment

    @property
    def side(self) -> int:
        """Its longer side in LR pixels, without context."""
        return max(self.row.stop - self.row.start, self.column.stop - self.column.start)

    @property
    def kept(self) -> Box:
        """What is kept of the crop's result, blends included, from the crop's upper left corner on."""
        row, column = self.row, self.column
        return Box(
            row.start - row.ramp_before - row.crop_start,
            column.start - column.ramp_before - column.crop_start,
            row.stop + row.ramp_after - row.crop_start,
            column.stop + column.ramp_after - column.crop_start,
        )

    @property
    def crop_shape(self) -> tuple[int, int]:
        """Height and width of its crop in LR pixels."""
        return self.row.crop_length, self.column.crop_length

    @property
    def crop_pixels(self) -> int:
        """LR pixels of its crop."""
        return self.row.crop_length * self.column.crop_length

    def crop(self, lr: NDArray[Any]) -> NDArray[Any]:
        """Return the tile's crop of the whole LR image, as a view."""
        return lr[self.row.crop_start : self.row.crop_stop, self.column.crop_start : self.column.crop_stop]


@dataclass(frozen=True)
class TilePlan:
    """How an image of `height` x `width` LR pixels is cut."""

    height: int
    width: int
    rows: tuple[Segment, ...]
    columns: tuple[Segment, ...]

    def __iter__(self) -> Iterator[Tile]:
        """Yield tiles from left to right, then from top to bottom."""
        return (Tile(row, column) for row in self.rows for column in self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def crop_pixels(self) -> int:
        """LR pixels of the largest crop: what bounds the memory."""
        return max(row.crop_length for row in self.rows) * max(column.crop_length for column in self.columns)


def plan_tiles(
    height: int, width: int, metadata: ModelMetadata, *, tile: TileSize | None, halo: int | None = None
) -> TilePlan:
    """Cut an image.

    Args:
        height, width: size of the LR image.
        metadata: facts about the network.
        tile: largest side of a tile in LR pixels, halo not counted, or its largest height and width; None: the whole
            image is one tile.
        halo: LR pixels of context; None: the model's own, which makes the tiles exact.
    """
    context = metadata.halo if halo is None else halo
    blend = not metadata.exact or context < metadata.halo

    def cut(length: int, side: int | None) -> tuple[Segment, ...]:
        if side is None or length // metadata.tile_multiple <= metadata.window:
            return (Segment(0, length, 0, length),)
        segments = split(0, length, length, side, context, metadata)
        return tuple(_with_ramps(segments, context)) if blend else tuple(segments)

    sides = tile if isinstance(tile, tuple) else (tile, tile)
    return TilePlan(height, width, cut(height, sides[0]), cut(width, sides[1]))


def split(start: int, stop: int, length: int, tile: int, halo: int, metadata: ModelMetadata) -> list[Segment]:
    """Cut [start, stop) of a direction of `length` pixels into equal parts of at most `tile`, with their crops."""
    multiple = metadata.tile_multiple
    tile = max(multiple, tile // multiple * multiple)
    count = -(-(stop - start) // tile)
    size = -(-(stop - start) // (count * multiple)) * multiple
    least = (metadata.window + 1) * multiple if metadata.window else 0
    segments = []
    for first in range(start, stop, size):
        last = min(first + size, stop)
        crop_start = max(0, first - halo) // multiple * multiple
        crop_stop = min(length, -(-(last + halo) // multiple) * multiple)
        crop_stop = min(length, max(crop_stop, crop_start + least))
        crop_start = min(crop_start, max(0, crop_stop - least) // multiple * multiple)
        segments.append(Segment(first, last, crop_start, crop_stop))
    return segments


def _with_ramps(segments: list[Segment], halo: int) -> Iterator[Segment]:
    """Add ramps: neighbors overlap by as much as both crops hold, and by at most half of either tile."""
    ramps = [0]
    for left, right in pairwise(segments):
        ramps.append(min(halo, (left.stop - left.start) // 2, (right.stop - right.start) // 2))
    ramps.append(0)
    for segment, before, after in zip(segments, ramps, ramps[1:], strict=False):
        yield Segment(segment.start, segment.stop, segment.crop_start, segment.crop_stop, before, after)

"""The enlarged image, put together from the results of its tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..backends import Values
from .plan import Segment, Tile, TilePlan

Convert = Callable[[Values], NDArray]
"""Converts the network's values to the result's, for example uint8, pixel by pixel; leaves the result's as they are."""


class Composer:
    """Puts the enlarged image together, one band of rows at a time, so that only a band need be in memory.

    Args:
        plan: how the image was cut.
        scale: HR pixels per LR pixel.
        convert: converts the network's values to the result's; called before a tile is stored, or after blending.
    """

    def __init__(self, plan: TilePlan, scale: int, convert: Convert) -> None:
        self._plan, self._scale, self._convert = plan, scale, convert
        self._blend = any(segment.ramp_after for segment in (*plan.rows, *plan.columns))
        self._band: NDArray | None = None
        self._carry: NDArray[np.float32] | None = None

    def add(self, tile: Tile, sr: Values) -> list[tuple[int, NDArray]]:
        """Add the network's result for a tile's crop, (H, W, 3); tiles come in the plan's order.

        Returns:
            Finished bands, as (first HR row, rows (H, scale * width, C)): one after the last tile of a row, else none.
        """
        scale, row, column = self._scale, tile.row, tile.column
        top, bottom = row.start - row.ramp_before, row.stop + row.ramp_after
        left, right = column.start - column.ramp_before, column.stop + column.ramp_after
        kept = sr[
            (top - row.crop_start) * scale : (bottom - row.crop_start) * scale,
            (left - column.crop_start) * scale : (right - column.crop_start) * scale,
        ]
        values = kept if self._blend else self._convert(kept)
        if len(self._plan.columns) == 1 and not self._blend:
            return [(top * scale, values)]
        if self._band is None:
            shape = ((bottom - top) * scale, self._plan.width * scale, values.shape[2])
            self._band = np.zeros(shape, values.dtype)
        target = self._band[:, left * scale : right * scale]
        if self._blend:
            target += values * (row.weights(scale)[:, None, None] * column.weights(scale)[:, None])
        else:
            target[...] = values
        if column is not self._plan.columns[-1]:
            return []
        band, self._band = self._band, None
        return [(top * scale, self._finish(row, band) if self._blend else band)]

    def _finish(self, row: Segment, band: NDArray[np.float32]) -> NDArray:
        """Add the rows kept back from the band above; keep back those that the band below blends with."""
        if self._carry is not None:
            band[: len(self._carry)] += self._carry
        keep = 2 * row.ramp_after * self._scale
        self._carry = band[len(band) - keep :] if keep else None
        return self._convert(band[: len(band) - keep])

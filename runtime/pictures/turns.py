"""The eight flips and quarter turns of an image, and the mean over them: self-ensemble."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TURNS = tuple((quarters, flipped) for quarters in range(4) for flipped in (False, True))
"""Quarter turns to the left, and whether a flip from left to right follows."""


def all_turns(image: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the eight views of an (H, W, C) image, in the order of `TURNS`; no pixel is copied."""
    turned = [(np.rot90(image, quarters), flipped) for quarters, flipped in TURNS]
    return [view[:, ::-1] if flipped else view for view, flipped in turned]


class MeanOfTurns:
    """The mean of a network's results on `all_turns(image)`, each turned back; only the sum is kept in memory."""

    def __init__(self) -> None:
        self._total: NDArray[np.float32] | None = None
        self.count = 0
        """How many results were added."""

    def add(self, sr: NDArray[np.float32]) -> None:
        """Add the result on the next turn, (H, W, C) float32; results come in the order of `TURNS`."""
        quarters, flipped = TURNS[self.count]
        upright = np.rot90(sr[:, ::-1] if flipped else sr, -quarters)
        self._total = upright.copy() if self._total is None else np.add(self._total, upright, out=self._total)
        self.count += 1

    def mean(self) -> NDArray[np.float32]:
        """Return the mean, (H, W, C) float32.

        Raises:
            ValueError: fewer than eight results were added.
        """
        if self._total is None or self.count < len(TURNS):
            raise ValueError(f"The mean is of {len(TURNS)} results; {self.count} were added.")
        return self._total / np.float32(len(TURNS))

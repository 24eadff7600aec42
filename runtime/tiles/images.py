"""Images while the network runs on them: each gives crops, takes their results, and yields finished bands of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..backends import Values
from ..pictures.turns import TURNS, MeanOfTurns, all_turns
from .composer import Composer, Convert
from .plan import Tile, TilePlan

ReadCrop = Callable[[Tile], Values]
"""Returns a tile's crop, (H, W, 3) uint8 or float32 0..255; called once for each tile, in the plan's order."""

Receive = Callable[[int, NDArray], None]
"""Takes a finished band: the number of its first HR row, and the rows, (H, scale * width, C)."""


class TiledImage:
    """One image that is cut into tiles, while the network runs on them.

    Args:
        plan: how it is cut.
        read_crop: returns a tile's crop.
        composer: puts the results together.
        receive: takes the bands, from top to bottom.

    Attributes:
        plan: as given.
        error: why the image failed, or None. After an error no more of its crops are run.
        tiles_done: how many tiles have their result.
    """

    def __init__(self, plan: TilePlan, read_crop: ReadCrop, composer: Composer, receive: Receive) -> None:
        self.plan = plan
        self.error: Exception | None = None
        self.tiles_done = 0
        self._read_crop, self._composer, self._receive = read_crop, composer, receive
        self._left = deque(plan)

    @property
    def next_shape(self) -> tuple[int, int] | None:
        """Height and width of the next crop; None if there is no more."""
        return self._left[0].crop_shape if self._left else None

    def take_crop(self) -> Crop | None:
        """Read the next crop. Returns None if that fails: the image then has the error."""
        tile = self._left.popleft()
        try:
            return Crop(self, tile, self._read_crop(tile))
        except Exception as error:
            self.fail(error)
            return None

    def add(self, tile: Tile, result: Values | Exception) -> None:
        """Add a tile's result, (scale * H, scale * W, 3) of its crop; tiles come in the plan's order."""
        try:
            if isinstance(result, Exception):
                raise result
            for first, band in self._composer.add(tile, result):
                self._receive(first, band)
        except Exception as error:
            self.fail(error)
        self.tiles_done += 1

    def fail(self, error: Exception) -> None:
        """End with this error: no more crops are run."""
        self.error = error
        self._left.clear()


@dataclass(frozen=True, eq=False)
class Crop:
    """What the network runs on: a tile of an image, and the crop's values (H, W, 3)."""

    image: TiledImage
    tile: Tile
    values: Values


def batches(images: Iterable[TiledImage], most: Callable[[], int]) -> Iterator[list[Crop]]:
    """Group crops of equal size, at most `most()` at a time, from at most as many images.

    A batch holds the next crop of the first image, and as many of that size as there are. Images are taken from the
    iterator when there is room for them, not before.
    """
    images = iter(images)
    waiting: list[TiledImage] = []
    while True:
        waiting = [image for image in waiting if image.next_shape is not None]
        if len(waiting) < most() and (following := next(images, None)) is not None:
            waiting.append(following)
            continue
        if not waiting:
            return
        shape, batch = waiting[0].next_shape, list[Crop]()
        for image in waiting:
            while len(batch) < most() and image.next_shape == shape:
                crop = image.take_crop()
                if crop is not None:
                    batch.append(crop)
        if batch:
            yield batch


class WholeImage:
    """An image in memory and its enlarged result; with self-ensemble the mean over its eight turns.

    Args:
        lr: (H, W, 3) uint8 or float32 0..255.
        make_plan: cuts an image of a height and a width.
        scale: HR pixels per LR pixel.
        convert: converts the network's values to the result's.
        self_ensemble: run the eight turns and average.
    """

    def __init__(
        self,
        lr: Values,
        make_plan: Callable[[int, int], TilePlan],
        scale: int,
        convert: Convert,
        *,
        self_ensemble: bool,
    ) -> None:
        self._lr, self._make_plan, self._scale, self._convert = lr, make_plan, scale, convert
        self._mean = MeanOfTurns() if self_ensemble else None
        self._early: dict[int, NDArray[np.float32]] = {}  # results of turns that wait for an earlier turn's
        self._begun: list[TiledImage] = []
        self._sr: NDArray | None = None

    def images(self) -> Iterator[TiledImage]:
        """Yield what the network runs on: the image, or its turns, each cut when it is taken."""
        # Tiles are cut after the turn: the patch grid starts at the upper left corner of what the network sees.
        views = [self._lr] if self._mean is None else all_turns(self._lr)
        for number, lr in enumerate(views):
            if self.error is not None:
                return
            height, width = lr.shape[:2]
            plan = self._make_plan(height, width)
            composer = Composer(plan, self._scale, self._convert if self._mean is None else _unchanged)
            assembly = _Assembly(height * self._scale, width * self._scale, partial(self._add, number))
            self._begun.append(TiledImage(plan, partial(Tile.crop, lr=lr), composer, assembly.receive))
            yield self._begun[-1]

    def __contains__(self, image: TiledImage) -> bool:
        """Return whether it is one of the images that `images` has yielded."""
        return image in self._begun

    @property
    def tiles_done(self) -> int:
        """How many tiles have their result, of all turns together."""
        return sum(image.tiles_done for image in self._begun)

    @property
    def tiles(self) -> int:
        """How many tiles there are, of all turns; a turn that is not cut yet counts as the first."""
        to_come = (len(TURNS) if self._mean is not None else 1) - len(self._begun)
        return sum(len(image.plan) for image in self._begun) + to_come * len(self._begun[0].plan)

    @property
    def error(self) -> Exception | None:
        """Why it failed, or None."""
        return next((image.error for image in self._begun if image.error is not None), None)

    @property
    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._sr is not None or self.error is not None

    def result(self) -> NDArray:
        """Return the result, (scale * H, scale * W, C), once it is done.

        Raises:
            Exception: what went wrong.
        """
        if self.error is not None:
            raise self.error
        assert self._sr is not None, "the network has not run"
        return self._sr

    def _add(self, number: int, sr: NDArray) -> None:
        """Add the result of one turn, or of the image itself."""
        if self._mean is None:
            self._sr = sr
            return
        self._early[number] = sr
        while self._mean.count in self._early:
            self._mean.add(self._early.pop(self._mean.count))
        if self._mean.count == len(TURNS):
            self._sr = self._convert(self._mean.mean())


class _Assembly:
    """Joins bands to one array of `height` x `width` HR pixels, and calls `finish` with it after the last."""

    def __init__(self, height: int, width: int, finish: Callable[[NDArray], None]) -> None:
        self._height, self._width, self._finish = height, width, finish
        self._sr: NDArray | None = None

    def receive(self, first: int, band: NDArray) -> None:
        if len(band) == self._height:
            self._finish(band)
            return
        if self._sr is None:
            self._sr = np.empty((self._height, self._width, *band.shape[2:]), band.dtype)
        self._sr[first : first + len(band)] = band
        if first + len(band) == self._height:
            self._finish(self._sr)


def _unchanged(values: Values) -> NDArray:
    return values

"""The frames of an image file that Pillow has opened: which there are, how long each is shown, and how often."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from PIL.ImageFile import ImageFile as ImageFileType

from .picture import Picture

logger = logging.getLogger("ignn")

MAX_FRAMES = 10_000
"""Most frames of one animation that are read."""

_ONE_PICTURE = {"PSD": "read as it looks, without its layers", "MPO": "its first picture alone is read"}
"""Formats of which the first picture alone is meant, and what is said where there are more."""

_REPEATS = ("GIF",)
"""Formats that count how often an animation is shown *again*; others count the times that it is shown."""


@dataclass(frozen=True)
class Frames:
    """Which frames of a file are read.

    Attributes:
        indexes: their numbers, as `seek` takes them.
        animated: whether they are shown one after the other.
        pages: whether each has a size of its own.
        loop: how often an animation is shown; 0: for ever.
    """

    indexes: range
    animated: bool = False
    pages: bool = False
    loop: int = 0


def frames_of(image: ImageFileType, name: str) -> Frames:
    """Return which frames of a file are read, and say which are not."""
    # Pillow counts a PSD's layers, 0 if there is only the picture.
    count = getattr(image, "n_frames", 1)
    if image.format in _ONE_PICTURE:
        if count > 1:
            logger.warning("%s: %s", name, _ONE_PICTURE[image.format])
        return Frames(range(1))
    if image.format == "TIFF":
        return Frames(range(count), pages=True)
    # The picture for programs that do not know animations is none of the frames.
    first = 1 if count > 1 and image.info.get("default_image") else 0
    animated = count > 1
    loop = image.info.get("loop")
    if loop is None:
        loop = 1 if animated and image.format != "AVIF" else 0  # Pillow does not tell how often an AVIF is shown
    elif image.format in _REPEATS and loop > 0:
        loop += 1
    return Frames(range(first, count), animated, loop=int(loop))


def of_one_size(frames: list[Picture]) -> list[Picture]:
    """Return an animation's frames in one size: smaller ones get transparent borders to the right and below."""
    height, width = (max(frame.color.shape[axis] for frame in frames) for axis in (0, 1))
    return [_padded(frame, height, width) for frame in frames]


def _padded(frame: Picture, height: int, width: int) -> Picture:
    rows, columns = height - frame.color.shape[0], width - frame.color.shape[1]
    if not rows and not columns:
        return frame
    alpha = frame.alpha
    if alpha is None:
        alpha = np.full(frame.color.shape[:2], frame.maximum, frame.color.dtype)
    return replace(
        frame,
        color=np.pad(frame.color, ((0, rows), (0, columns), (0, 0))),
        alpha=np.pad(alpha, ((0, rows), (0, columns))),
    )

"""16 bits a channel of color, which Pillow reads with 8."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.ImageFile import ImageFile as ImageFileType

from .picture import Picture, unmultiplied
from .source import Source

_DEEP_MODES = ("RGB;16", "RGBA;16", "RGBX;16", "RGBa;16", "LA;16")
"""Beginnings of Pillow's raw modes that hold more than Pillow keeps."""


def read_deep_color(source: Source, image: ImageFileType, page: int = 0) -> Picture | None:
    """Return 16-bit color of PNG and TIFF, upright; None if the file has none.

    Pillow keeps the upper byte of each value only. Decoding a second time, with the byte order turned round, gives the
    lower bytes.
    """
    mode = _deep_mode(image)
    if mode is None:
        return None
    if mode == "LA;16B":  # 4 bytes a pixel, which is RGBA of 8 bits
        values = _decode(image, "RGBA").astype(np.uint16)
        color: NDArray[Any] = values[..., 0:1] << 8 | values[..., 1:2]
        return Picture(color, values[..., 2] << 8 | values[..., 3], image.info.get("icc_profile"))
    order = mode[-1]
    turned = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[order]
    straight = mode.replace("a", "A")  # of colors multiplied by alpha Pillow would divide the bytes
    with source.opened() as again:
        if page:
            again.seek(page)
        low = _decode(again, straight[:-1] + turned)
    both = _decode(image, straight).astype(np.uint16) << 8 | low
    color, alpha = both[..., :3], both[..., 3] if both.shape[2] == 4 else None
    if "a" in mode and alpha is not None:
        color = unmultiplied(color, alpha)
    if alpha is None:
        alpha = _where_not(color, image.info.get("transparency"))
    return Picture(color, alpha, image.info.get("icc_profile"))


def is_deep(image: ImageFileType) -> bool:
    """Return whether an opened file has 16-bit color."""
    return _deep_mode(image) is not None


def _deep_mode(image: ImageFileType) -> str | None:
    raw = {tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in image.tile}
    mode = raw.pop() if len(raw) == 1 else None
    return mode if isinstance(mode, str) and mode.startswith(_DEEP_MODES) else None


def _where_not(color: NDArray[Any], transparent: Any) -> NDArray[Any] | None:  # noqa: ANN401 - as Pillow has it
    """Return the alpha of a picture one color of which is transparent; None if none is."""
    if transparent is None:
        return None
    hidden = (color == np.array(transparent, color.dtype)).all(axis=2)
    return np.where(hidden, 0, 65535).astype(np.uint16)


def _decode(image: ImageFileType, raw_mode: str) -> NDArray[np.uint8]:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
    image.load()
    return np.asarray(ImageOps.exif_transpose(image))

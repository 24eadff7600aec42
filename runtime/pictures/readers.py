"""Formats that Pillow does not read, or not whole: which reader a file needs, by its first bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from ..errors import ImageReadError
from . import exif as tags
from . import heif, jxl, raw
from .picture import ImageFile, from_array
from .source import Source
from .tiff import needs_tifffile, read_tiff

Reader = Callable[[Source], ImageFile]

EXTRA_SUFFIXES = (*heif.SUFFIXES, *jxl.SUFFIXES, *raw.SUFFIXES)
"""Suffixes of what the extra `formats` reads."""

EXTRA_READERS: tuple[Reader, ...] = (heif.read_heif, jxl.read_jxl, raw.read_raw)
"""Readers of that extra, which decode a file whole."""


def reader_of(source: Source) -> Reader | None:
    """Return the reader of a file that is not for Pillow; None if it is for Pillow."""
    with source.stream() as file:
        head = file.read(64)
        if raw.is_raw(file) or (head[:4] in tags.MAGICS and source.suffix in raw.SUFFIXES):
            return raw.read_raw
        if head[:4] in tags.MAGICS:
            return read_tiff if needs_tifffile(file) else None
    if heif.is_heif(head):
        return heif.read_heif
    if jxl.is_jxl(head):
        return jxl.read_jxl
    if head[:3] in (b"PF\n", b"Pf\n", b"PF\r", b"Pf\r", b"PF ", b"Pf "):
        return read_pfm
    return None


def read_pfm(source: Source) -> ImageFile:
    """Read a portable float map, grey or RGB, whose values are 0..1.

    Raises:
        ImageReadError: it is damaged.
        InvalidImageError: other values.
    """
    content = source.content()
    words = content[:200].split(maxsplit=4)
    try:
        width, height, scale = int(words[1]), int(words[2]), float(words[3])
        begin = content.index(words[3], len(words[0]) + len(words[1]) + len(words[2])) + len(words[3]) + 1
    except (ValueError, IndexError) as error:
        raise ImageReadError(f"{source.name} is damaged: it has no PFM header. Replace it.") from error
    channels = 3 if words[0] == b"PF" else 1
    if width < 1 or height < 1 or scale == 0:
        raise ImageReadError(f"{source.name} is damaged: {width} x {height} pixels, scale {scale:g}. Replace it.")
    source.check(f"{width} x {height} = ", width * height)
    kind = "<f4" if scale < 0 else ">f4"
    size = height * width * channels * struct.calcsize("f")
    if len(content) < begin + size:
        raise ImageReadError(f"{source.name} is damaged or truncated (it has {len(content)} bytes). Replace it.")
    values = np.frombuffer(content, kind, size // 4, begin).reshape(height, width, channels)[::-1]
    return ImageFile([from_array(values)], [], format="PFM")

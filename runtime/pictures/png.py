"""PNG files that Pillow does not write: 16-bit color, and pictures that come band of rows by band of rows.

A PNG of 8 bits whose picture is in memory is Pillow's: `write.py`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .picture import Picture

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's number of grey, grey with alpha, RGB, and RGB with alpha, by channels."""

_FILTER_UP = 2
"""Each byte less the one above it: NumPy does it to all at once, and it suits photographs well."""


def write_deep_png(file: BinaryIO, picture: Picture) -> None:
    """Write a picture of uint16 as a 16-bit PNG, with what is said beside it."""
    values = picture.color
    if picture.alpha is not None:
        values = np.concatenate([values, picture.alpha[..., None]], axis=2)
    height, width, channels = values.shape
    write_png_rows(file, (height, width, channels), values.dtype, [values], picture)


def note_chunks(picture: Picture) -> list[tuple[bytes, bytes]]:
    """Return the chunks of HDR coding, XMP and texts: kind and data."""
    chunks = []
    if picture.coding is not None:
        chunks.append((b"cICP", bytes([*picture.coding, 0, 1])))
    if picture.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + picture.xmp))
    for key, text in picture.text:
        keyword = key.encode("latin-1", "replace")[:79]
        try:
            chunks.append((b"tEXt", keyword + b"\0" + text.encode("latin-1")))
        except UnicodeEncodeError:
            chunks.append((b"iTXt", keyword + bytes(5) + text.encode()))
    return chunks


def find_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """Return the data of the first chunk of that kind in front of the pixels of a PNG; None if there is none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, found = struct.unpack(">I4s", head)
        if found == kind:
            return file.read(length)
        if found == b"IDAT":
            return None
        file.seek(length + 4, 1)
    return None


def write_png_rows(
    file: BinaryIO,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    bands: Iterable[NDArray[Any]],
    notes: Picture,
) -> None:
    """Write a PNG, one band of rows after the other.

    Args:
        file: where to; it is only written to, from front to back.
        shape: (H, W, C) of the whole picture, C from 1 (grey) to 4 (RGB with alpha).
        dtype: uint8 or uint16.
        bands: (rows, W, C) of that type, from top to bottom, H rows in all.
        notes: what is said beside the pixels; its pixels are not looked at.
    """
    height, width, channels = shape

    def chunk(kind: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    file.write(b"\x89PNG\r\n\x1a\n")
    bits = 8 * dtype.itemsize
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOR_TYPES[channels], 0, 0, 0))
    if notes.icc:
        chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(notes.icc))
    for kind, data in note_chunks(notes):
        chunk(kind, data)
    if notes.dpi:
        chunk(b"pHYs", struct.pack(">IIB", *(round(side / 0.0254) for side in notes.dpi), 1))
    if notes.exif:
        chunk(b"eXIf", notes.exif.removeprefix(b"Exif\0\0"))
    packer = zlib.compressobj(6)
    for part in _filtered(bands):
        if data := packer.compress(part):
            chunk(b"IDAT", data)
    chunk(b"IDAT", packer.flush())
    chunk(b"IEND", b"")


def _filtered(bands: Iterable[NDArray[Any]], rows: int = 256) -> Iterator[bytes]:
    """Yield the bytes of some rows at a time, each row with its filter's number in front."""
    above: NDArray[np.uint8] | None = None
    for band in bands:
        for first in range(0, len(band), rows):
            part = band[first : first + rows]
            big_endian = np.ascontiguousarray(part.astype(part.dtype.newbyteorder(">"), copy=False))
            octets = big_endian.view(np.uint8).reshape(len(part), -1)
            if above is None:
                above = np.zeros_like(octets[0])
            difference = octets - np.concatenate([above[None], octets[:-1]])
            above = octets[-1].copy()
            yield np.concatenate([np.full((len(part), 1), _FILTER_UP, np.uint8), difference], axis=1).tobytes()

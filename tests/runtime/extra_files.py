"""Small files of the kinds that the extra `formats` reads, in memory."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from runtime.clone import install_command

WORDS = f"could not import the extra formats: {install_command('formats')}"
pillow_heif = pytest.importorskip("pillow_heif", reason=WORDS)
pyjpegxl = pytest.importorskip("pyjpegxl", reason=WORDS)
pytest.importorskip("rawpy", reason=WORDS)

XYZ_TO_SRGB = (3.2404542, -1.5371385, -0.4985314, -0.969266, 1.8760108, 0.041556, 0.0556434, -0.2040259, 1.0572252)


def heic(*images: np.ndarray, quality: int = -1, **options: Any) -> bytes:
    """A HEIC of (H, W, 3) or (H, W, 4) images of uint8 or uint16; without loss, unless a quality is given."""
    content = pillow_heif.HeifFile()
    for image in images:
        mode = ("RGB" if image.shape[2] == 3 else "RGBA") + (";16" if image.dtype == np.uint16 else "")
        content.add_frombytes(mode, image.shape[1::-1], image.tobytes())
    file = io.BytesIO()
    content.save(file, quality=quality, **({"chroma": 444, "matrix_coefficients": 0} | options))
    return file.getvalue()


def jxl(image: np.ndarray, *, lossless: bool = True, **options: Any) -> bytes:
    """A JPEG XL of an image (H, W, 1 to 4) of uint8, uint16 or float32."""
    content: bytes = pyjpegxl.encode_from_numpy(np.ascontiguousarray(image), lossless=lossless, **options)
    return content


def dng(mosaic: np.ndarray, orientation: int = 1) -> bytes:
    """A DNG of an RGGB mosaic (H, W) of uint16, of a camera whose colors are sRGB's."""
    matrix = tuple(number for value in XYZ_TO_SRGB for number in (round(value * 10000), 10000))
    entries = [
        (50706, "B", 4, (1, 4, 0, 0), True),
        (50708, "s", 0, "Test camera", True),
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, (0, 1, 1, 2), True),
        (50717, "I", 1, 65535, True),
        (50721, "2i", 9, matrix, True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, 21, True),
        (271, "s", 0, "Some maker", True),
    ]
    if orientation != 1:
        entries.append((274, "H", 1, orientation, True))
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic, photometric=32803, extratags=entries, software=False, metadata=None)
    return file.getvalue()


def with_cicp(icc: bytes, primaries: int, transfer: int) -> bytes:
    """An ICC profile that tells its colors by numbers too."""
    (count,) = struct.unpack_from(">I", icc, 128)
    end = 132 + 12 * count
    rows = [struct.unpack_from(">4sII", icc, 132 + 12 * row) for row in range(count)]
    table = b"".join(struct.pack(">4sII", tag, place + 12, size) for tag, place, size in rows)
    table += struct.pack(">4sII", b"cicp", len(icc) + 12, 12)
    whole = icc[4:8] + struct.pack(">I", 0x04400000) + icc[12:128] + struct.pack(">I", count + 1) + table + icc[end:]
    whole += b"cicp" + bytes(4) + bytes([primaries, transfer, 0, 1])
    return struct.pack(">I", len(whole) + 4) + whole

"""Color spaces: what PNG and AVIF say by numbers, as ICC profiles; and conversion to sRGB."""

from __future__ import annotations

import io
import logging
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

logger = logging.getLogger("ignn")

PQ, HLG = 16, 18
"""Transfer functions of HDR (ITU-T H.273), which go beyond the white of an ICC profile."""


class Coding(NamedTuple):
    """Color primaries and transfer function, by their numbers in ITU-T H.273."""

    primaries: int
    transfer: int

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (PQ, HLG)


Point = tuple[float, float]
"""x and y of CIE 1931."""

_D65: Point = (0.3127, 0.3290)
_BT709 = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_PRIMARIES: dict[int, tuple[Point, Point, Point, Point]] = {
    1: _BT709,
    2: _BT709,  # not specified
    4: ((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""White, red, green, blue, by the number of ITU-T H.273."""

_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_LIKE_SRGB = (1, 2, 6, 13, 14, 15)
"""Transfer functions that are shown as sRGB's: those of video are meant for the same screens."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50_XYZ = np.array([0.9642, 1.0, 0.8249])


def profile_of_coding(coding: Coding, *, grey: bool) -> bytes | None:
    """Return the ICC profile of numbers of ITU-T H.273 that are not HDR; None for sRGB."""
    points = _PRIMARIES.get(coding.primaries)
    gamma = _GAMMAS.get(coding.transfer)
    if points is None or (gamma is None and coding.transfer not in _LIKE_SRGB):
        logger.warning("colors of primaries %d and transfer function %d are taken for sRGB", *coding)
        return None
    if gamma is None and (points == _BT709 or grey):
        return None
    return make_profile(points, gamma, grey=grey)


def profile_of_png(info: dict[Any, Any], *, grey: bool) -> bytes | None:
    """Return the ICC profile of a PNG that tells a gamma and chromaticities instead; None for sRGB.

    Args:
        info: what Pillow has read: `gamma` is the exponent of encoding, `chromaticity` white, red, green and blue.
        grey: whether the picture is grey.
    """
    gamma, points = float(info.get("gamma") or 0), info.get("chromaticity")
    if "srgb" in info or not (gamma or points):
        return None
    flat = [value for point in _BT709 for value in point]
    if points is None or len(points) != 8 or not _is_gamut(points) or np.abs(np.subtract(points, flat)).max() < 0.01:
        points = flat
    usual = not gamma or abs(gamma - 1 / 2.2) < 0.005
    if not usual and not 0.05 < gamma < 20:
        return None
    if usual and (points == flat or grey):
        return None
    white, red, green, blue = zip(points[0::2], points[1::2], strict=True)
    return make_profile((white, red, green, blue), None if usual else 1 / gamma, grey=grey)


def make_profile(points: tuple[Point, Point, Point, Point], gamma: float | None, *, grey: bool) -> bytes:
    """Return an ICC profile (version 2) of a display.

    Args:
        points: its white, red, green and blue.
        gamma: the exponent of decoding, below 256; None: sRGB's curve.
        grey: for grey pictures.
    """
    if gamma is None:
        codes = np.linspace(0, 1, 1024)
        light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
        curve = b"curv" + struct.pack(">II", 0, 1024) + np.rint(light * 65535).astype(">u2").tobytes()
    else:
        curve = b"curv" + struct.pack(">IIH", 0, 1, min(round(gamma * 256), 65535))
    words = b"Colors as the file tells them\0"
    entries = {
        b"desc": b"desc" + struct.pack(">II", 0, len(words)) + words + bytes(78),
        b"cprt": b"text" + bytes(4) + b"Public domain\0",
        b"wtpt": _xyz(_D50_XYZ),
    }
    if grey:
        entries[b"kTRC"] = curve
    else:
        for letter, column in zip((b"r", b"g", b"b"), _to_d50(points).T, strict=True):
            entries |= {letter + b"XYZ": _xyz(column), letter + b"TRC": curve}
    space = b"GRAY" if grey else b"RGB "
    table, body = struct.pack(">I", len(entries)), b""
    begin = 128 + 4 + 12 * len(entries)
    for tag, data in entries.items():
        table += tag + struct.pack(">II", begin + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", begin + len(body), b"", 0x02400000, b"mntr", space, b"XYZ ", b"acsp")
    return head + _xyz(_D50_XYZ)[8:] + bytes(48) + table + body


def pil_to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Return an image of another color model as RGB: CMYK by its profile, if it has a usable one."""
    if icc and image.mode == "CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            logger.warning("%s converted to sRGB by its ICC profile", image.mode)
            assert converted is not None
            return converted
        except (ImageCms.PyCMSError, OSError) as error:
            logger.warning("the ICC profile is not usable (%s)", error)
    if image.mode == "LAB":
        logger.warning("LAB converted to sRGB")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    logger.warning("%s converted to RGB without a profile", image.mode)
    return image.convert("RGB")


def to_srgb(color: NDArray[np.uint8], icc: bytes) -> NDArray[np.uint8] | None:
    """Return colors of a profile in sRGB, for formats that hold no profile.

    Args:
        color: (H, W, 1) or (H, W, 3).
        icc: the profile.

    Returns:
        The same shape; None if the profile is not usable.
    """
    grey = color.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(color[..., 0] if grey else color))
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    assert converted is not None
    return np.asarray(converted)[..., :1] if grey else np.asarray(converted)


def _is_gamut(points: list[float]) -> bool:
    """Return whether white, red, green and blue are colors, and red, green and blue no line."""
    if not all(0 < value < 1 for value in points):
        return False
    (rx, ry), (gx, gy), (bx, by) = zip(points[2::2], points[3::2], strict=True)
    return abs((gx - rx) * (by - ry) - (bx - rx) * (gy - ry)) > 1e-3


def _to_d50(points: tuple[Point, Point, Point, Point]) -> NDArray[np.float64]:
    """Return XYZ of red, green and blue as columns, adapted from their white to D50 by Bradford."""
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points)
    matrix = np.stack(primaries, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    gain = (_BRADFORD @ _D50_XYZ) / (_BRADFORD @ white)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ matrix
    return adapted


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in values))

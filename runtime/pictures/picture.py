"""Decoded pictures, and their way through a network that takes RGB 0..255 only.

A grey picture goes in as R = G = B and comes out as the luma of the result. Alpha does not go through the network:
Lanczos resizes it. Before the colors go in, those of fully transparent pixels are replaced by the colors around them,
so that a hidden black or white does not show at visible edges.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageReadError, InvalidImageError
from .color import Coding, pil_to_srgb

logger = logging.getLogger("ignn")

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""

FLOAT_SLACK = 1e-3
"""How far floats may lie outside 0..1: what arithmetic in float16 and resampling round."""

_SRGB_MODES = ("CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class Picture:
    """One decoded picture.

    Attributes:
        color: (H, W, 1) grey or (H, W, 3) RGB; uint8 0..255, uint16 0..65535 or float32 0..1; alpha not multiplied in.
        alpha: (H, W), of the type of `color`, or None.
        icc: ICC profile of the colors, or None (sRGB is then the custom).
        exif: EXIF block, or None. Its orientation is already applied in what is read from files.
        coding: how HDR colors are coded, or None.
        xmp: XMP packet, or None.
        iptc: IPTC block, or None.
        text: keywords and their texts, as PNG has them; a file's comment is called Comment.
        dpi: pixels an inch, across and down, or None.
    """

    color: NDArray[Any]
    alpha: NDArray[Any] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    coding: Coding | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    dpi: tuple[float, float] | None = None

    @property
    def is_grey(self) -> bool:
        return self.color.shape[2] == 1

    @property
    def maximum(self) -> float:
        """The value of white: 255, 65535 or 1."""
        return maximum_of(self.color.dtype)


@dataclass(frozen=True)
class ImageFile:
    """What an image file holds.

    Attributes:
        frames: one picture; several for an animation or a TIFF of several pages.
        durations_ms: how long each frame is shown; empty for what is not an animation.
        loop: how often an animation is shown; 0: for ever.
        format: Pillow's name of the format that was read, such as `JPEG`; None for what was not read.
    """

    frames: list[Picture]
    durations_ms: list[int]
    loop: int = 0
    format: str | None = None


def maximum_of(dtype: np.dtype[Any]) -> float:
    """Return the value of white in a type: 255, 65535 or 1."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def from_array(array: NDArray[Any]) -> Picture:
    """Return the picture of an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) array of uint8, uint16 or floats 0..1.

    Raises:
        InvalidImageError: any other shape or type, no pixels, NaN, infinity, or floats outside 0..1.

    Floats that miss 0..1 by rounding (`FLOAT_SLACK`) are clamped.
    """
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InvalidImageError(
            f"Invalid image shape {array.shape}. Supported shapes are (H, W), (H, W, 1), (H, W, 3) and (H, W, 4)."
        )
    if array.size == 0:
        raise InvalidImageError(f"Invalid image shape {array.shape}: it has no pixels.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InvalidImageError("Invalid image: it has NaN or infinite values. Remove them with np.nan_to_num.")
        low, high = float(array.min()), float(array.max())
        if low < -FLOAT_SLACK or high > 1 + FLOAT_SLACK:
            remedy = "Clamp them with np.clip(image, 0, 1)" if low >= -1 and high <= 2 else "Divide by 255"
            raise InvalidImageError(
                f"Invalid float image: values from {low:.7g} to {high:.7g}; 0..1 is expected. {remedy}, or give uint8."
            )
        array = array.astype(np.float32)
        if low < 0 or high > 1:
            array = array.clip(0, 1)
    elif array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        raise InvalidImageError(f"Invalid image type {array.dtype}. Supported types are uint8, uint16 and floats 0..1.")
    if array.ndim == 2:
        array = array[..., None]
    return Picture(array[..., :3], array[..., 3]) if array.shape[2] == 4 else Picture(array)


def to_array(picture: Picture, *, like: NDArray[Any]) -> NDArray[Any]:
    """Return a picture as an array, with the rank and type of `like`."""
    array = picture.color
    if picture.alpha is not None:
        array = np.concatenate([array, picture.alpha[..., None]], axis=2)
    if like.ndim == 2:
        array = array[..., 0]
    return array.astype(like.dtype, copy=False)


def from_pil(image: Image.Image) -> Picture:
    """Return the picture of a PIL image of any mode. CMYK, YCbCr, LAB and HSV become sRGB, and the log says so.

    Raises:
        InvalidImageError: closed, no pixels, or values out of range: 32-bit integers 0..65535, floats 0..1.
        ImageReadError: its file is truncated or damaged.
    """
    if 0 in image.size:
        raise InvalidImageError(f"Invalid image size {image.size}: it has no pixels.")
    hidden = transparent_grey(image)
    _load(image)
    if hidden is not None:
        image = image.copy()
        image.info["transparency"] = hidden
    icc, exif = image.info.get("icc_profile"), image.info.get("exif")
    if image.mode in _SRGB_MODES:
        image, icc = pil_to_srgb(image, icc), None
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidImageError(
                f"Invalid 32-bit image: values from {values.min()} to {values.max()}; 0..65535 is expected."
            )
        hidden = image.info.get("transparency")  # the one value of a 16-bit PNG that is transparent
        alpha = None if hidden is None else np.where(values == hidden, 0, 65535).astype(np.uint16)
        return Picture(values.astype(np.uint16)[..., None], alpha, icc=icc, exif=exif)
    if image.mode == "F":
        return replace(from_array(np.asarray(image)), icc=icc, exif=exif)
    transparent = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB")
    if image.mode in ("La", "RGBa"):  # Pillow un-multiplies only into the mode of the same name
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    values = np.array(image if image.mode == mode else image.convert(mode))
    if values.ndim == 2:
        values = values[..., None]
    if not transparent:
        return Picture(values, icc=icc, exif=exif)
    return Picture(values[..., :-1], values[..., -1], icc=icc, exif=exif)


def transparent_grey(image: Image.Image) -> int | None:
    """Return the transparent grey of a PNG of 2 or 4 bits as its pixels will be; None if Pillow has it right.

    Pillow spreads the pixels over 0..255, and leaves this value as it is in the file. Ask before pixels are decoded.
    """
    tiles = getattr(image, "tile", None)
    raw = tiles[0].args if tiles else None
    bits = {"L;2": 2, "L;4": 4}.get(raw) if isinstance(raw, str) else None
    value = image.info.get("transparency")
    if image.format != "PNG" or bits is None or not isinstance(value, int) or value >= 1 << bits:
        return None
    return value * 255 // ((1 << bits) - 1)


def _load(image: Image.Image) -> None:
    """Decode a PIL image, which Pillow does on first use."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything
        if "closed" in str(error):
            raise InvalidImageError(
                "The PIL image is closed. Give it before its `with` block ends, or call its load() there."
            ) from error
        name = getattr(image, "filename", "") or "The file of the PIL image"
        reason = str(error) or type(error).__name__
        raise ImageReadError(f"{name} is damaged or truncated ({reason}). Replace it.") from error


def to_pil(picture: Picture) -> Image.Image:
    """Return a picture as a PIL image of mode L, LA, RGB, RGBA or I;16.

    Pillow has no 16-bit color: it is reduced to 8 bits, and the log says so.
    """
    color, alpha = picture.color, picture.alpha
    if color.dtype == np.uint16 and (alpha is not None or not picture.is_grey):
        logger.warning("a PIL image has no 16-bit color: reduced to 8 bits (give an array, or write to a file)")
        return to_pil(eight_bits(picture))
    values = color if alpha is None else np.concatenate([color, alpha[..., None]], axis=2)
    image = Image.fromarray(np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values))
    for key, value in (("icc_profile", picture.icc), ("exif", picture.exif)):
        if value:
            image.info[key] = value
    return image


def eight_bits(picture: Picture) -> Picture:
    """Return the picture with 8 bits a channel."""
    return in_type(picture, np.dtype(np.uint8))


def unmultiplied(color: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Return colors (H, W, C) that alpha (H, W), of the same type, was multiplied into, without it."""
    maximum = maximum_of(color.dtype)
    share = np.maximum(alpha, 1 / 65535 if maximum == 1 else 1)[..., None].astype(np.float64) / maximum
    values = np.minimum(color / share, maximum)
    return (values if maximum == 1 else np.rint(values)).astype(color.dtype)


def in_type(picture: Picture, dtype: np.dtype[Any]) -> Picture:
    """Return the picture with values of another type: uint8, uint16 or float32."""
    if picture.color.dtype == dtype:
        return picture
    factor = maximum_of(dtype) / picture.maximum

    def convert(values: NDArray[Any]) -> NDArray[Any]:
        scaled = values * factor
        return (scaled if dtype.kind == "f" else np.rint(scaled)).astype(dtype)

    alpha = None if picture.alpha is None else convert(picture.alpha)
    return replace(picture, color=convert(picture.color), alpha=alpha)


def network_input(picture: Picture) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Return (H, W, 3) RGB 0..255 for the network: the picture's own uint8 array if it is RGB, else float32."""
    if picture.color.dtype == np.uint8 and not picture.is_grey and (picture.alpha is None or picture.alpha.all()):
        return picture.color
    color = picture.color.astype(np.float32)
    if picture.color.dtype != np.uint8:
        color *= np.float32(255 / picture.maximum)
    if picture.alpha is not None and not picture.alpha.all():
        color = _bleed(color, picture.alpha > 0)
    return np.repeat(color, 3, axis=2) if picture.is_grey else color


def quantize(sr: NDArray[np.float32], dtype: np.dtype[Any], *, grey: bool) -> NDArray[Any]:
    """Convert the network's (H, W, 3) 0..255 to `dtype`, rounded and clamped; to (H, W, 1) if the picture is grey."""
    maximum = maximum_of(dtype)
    values = (sr @ LUMA)[..., None] if grey else sr
    scaled = values * np.float32(maximum / 255) if maximum != 255 else values.copy()
    if dtype.kind != "f":
        np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, maximum, out=scaled).astype(dtype, copy=False)


def enlarged(source: Picture, color: NDArray[Any], scale: int) -> Picture:
    """Return the enlarged picture: the new colors, alpha resized by Lanczos, the rest as the source has it."""
    return replace(source, color=color, alpha=None if source.alpha is None else _resize_alpha(source.alpha, scale))


def flattened(picture: Picture, background: tuple[int, int, int]) -> Picture:
    """Return the picture laid on a background (RGB 0..255), without transparency."""
    if picture.alpha is None:
        return picture
    share = (picture.alpha.astype(np.float32) / picture.maximum)[..., None]
    ground = np.array(background, np.float32) * np.float32(picture.maximum / 255)
    mixed = picture.color.astype(np.float32) * share + ground * (1 - share)
    values = np.rint(mixed) if picture.color.dtype.kind != "f" else mixed
    return replace(picture, color=values.astype(picture.color.dtype), alpha=None)


def _resize_alpha(alpha: NDArray[Any], scale: int) -> NDArray[Any]:
    size = (alpha.shape[1] * scale, alpha.shape[0] * scale)
    plane = Image.fromarray(np.ascontiguousarray(alpha, np.float32))
    values = np.asarray(plane.resize(size, Image.Resampling.LANCZOS))
    if alpha.dtype.kind != "f":
        values = np.rint(values)
    return np.clip(values, 0, maximum_of(alpha.dtype)).astype(alpha.dtype)


def _bleed(color: NDArray[np.float32], visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill each invisible pixel with the mean of the visible ones around it, from a pyramid of halved pictures."""
    weight = visible[..., None].astype(np.float32)
    filled = color * weight
    if not visible.any() or visible.all():
        return filled
    height, width = (-(-side // 2) * 2 for side in visible.shape)
    pad = ((0, height - len(color)), (0, width - color.shape[1]), (0, 0))

    def halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(values, pad).reshape(height // 2, 2, width // 2, 2, -1).sum(axis=(1, 3))

    total = halved(weight)
    mean = halved(filled) / np.maximum(total, 1)
    coarse = _bleed(mean.astype(np.float32), total[..., 0] > 0)
    spread = coarse.repeat(2, axis=0).repeat(2, axis=1)[: len(color), : color.shape[1]]
    return np.where(visible[..., None], color, spread)

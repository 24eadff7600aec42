"""TIFF files that Pillow does not read, or not whole: floating point, and 16 bits in planes."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import BackendUnavailableError, ImageReadError
from . import exif as tags
from .notes import Facts, with_notes
from .picture import ImageFile, Picture, from_array, from_pil, in_type, unmultiplied
from .source import Source

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _FORMAT, _PROFILE = 258, 262, 277, 284, 339, 34675
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5


def needs_tifffile(file: BinaryIO) -> bool:
    """Return whether a TIFF's first page holds floating point, or 16 bits or more in planes."""
    try:
        page = {entry.tag: entry for entry in tags.read_directory(file)}
        if _first(page, _PHOTOMETRIC, -1) not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK):
            return False
        in_planes = _first(page, _PLANES, 1) == 2 and _first(page, _SAMPLES, 1) > 1
        return _first(page, _FORMAT, 1) == 3 or (in_planes and _first(page, _BITS, 1) > 8)
    except (ValueError, KeyError, struct.error):
        return False


def read_tiff(source: Source) -> ImageFile:
    """Read a TIFF by tifffile.

    Raises:
        ImageReadError: it is damaged.
        InvalidImageError: shape or values that mean no picture.
        BackendUnavailableError: a compression that needs imagecodecs, which tifffile knows.
    """
    import tifffile

    frames, pixels = [], 0
    with source.stream() as file, tifffile.TiffFile(file) as tiff:
        pages: list[Any] = list(tiff.pages)
        for page in pages:
            pixels += page.imagewidth * page.imagelength
            source.check(f"{len(pages)} pages with " if len(pages) > 1 else "", pixels)
            try:
                values = page.asarray()
            except ValueError as error:
                if "imagecodecs" in str(error):
                    raise BackendUnavailableError(
                        f"{source.name} is compressed in a way that tifffile reads with imagecodecs alone. Install it "
                        "with: pip install imagecodecs"
                    ) from error
                raise
            facts = _facts(file, page)
            picture = _picture(values, page, source.name, facts.info["icc_profile"])
            frames.append(with_notes(picture, facts, source.name))
    return ImageFile(frames, [], format="TIFF")


def _picture(values: NDArray[Any], page: Any, name: str, icc: bytes | None) -> Picture:  # noqa: ANN401 - of tifffile
    """Return the colors and the alpha of a page's samples."""
    samples = int(page.samplesperpixel)
    if samples > 1 and int(page.planarconfig) == 2:
        values = np.moveaxis(values, 0, -1)
    own = {_RGB: 3, _CMYK: 4}.get(int(page.photometric), 1)
    height, width = int(page.imagelength), int(page.imagewidth)
    if values.size != height * width * samples or samples < own:
        raise ImageReadError(f"{name} has pages of shape {values.shape}; pictures of (H, W) and (H, W, C) are read.")
    values = values.reshape(height, width, samples)
    picture = replace(from_array(values[..., : min(own, 3)]), icc=icc)
    if own == 4:
        inks = in_type(Picture(values[..., :4]), np.dtype(np.uint8)).color
        return from_pil(_with_profile(Image.fromarray(np.ascontiguousarray(inks), "CMYK"), icc))
    if int(page.photometric) == _WHITE_IS_ZERO:
        picture = replace(picture, color=picture.color.dtype.type(picture.maximum) - picture.color)
    extra = [int(kind) for kind in page.extrasamples]
    if samples == own or not extra or extra[0] not in (1, 2):
        return picture
    alpha = from_array(values[..., own]).color[..., 0]
    if extra[0] == 1:  # colors are multiplied by it
        picture = replace(picture, color=unmultiplied(picture.color, alpha))
    return replace(picture, alpha=alpha)


def _with_profile(image: Image.Image, icc: bytes | None) -> Image.Image:
    if icc is not None:
        image.info["icc_profile"] = icc
    return image


def _facts(file: BinaryIO, page: Any) -> Facts:  # noqa: ANN401 - of tifffile
    try:
        entries = tags.read_directory(file, page.offset)
    except (ValueError, KeyError, struct.error):
        entries = ()
    held = {entry.tag: entry for entry in entries}
    profile, xmp = held.get(_PROFILE), held.get(tags.XMP)
    info: dict[str, Any] = {
        "icc_profile": None if profile is None else profile.value,
        "xmp": None if xmp is None else xmp.value,
        "dpi": page.get_resolution(2),
    }
    if "XResolution" not in page.tags or page.resolutionunit not in (2, 3):
        del info["dpi"]
    return Facts(info, "TIFF", _first(held, tags.ORIENTATION, 1), entries)


def _first(entries: dict[int, tags.Entry], tag: int, default: int) -> int:
    """Return an entry's first whole number."""
    entry = entries.get(tag)
    if entry is None or entry.kind not in (1, 3, 4):
        return default
    size = {1: 1, 3: 2, 4: 4}[entry.kind]
    return int.from_bytes(entry.value[:size], "little")

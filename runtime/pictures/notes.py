"""What an image file says beside its pixels: read from what Pillow has opened, and brought up to date."""

from __future__ import annotations

import logging
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile as ImageFileType

from . import exif as tags
from .color import Coding, profile_of_coding, profile_of_png
from .picture import Picture
from .png import find_chunk
from .source import Source

logger = logging.getLogger("ignn")

_IPTC_RESOURCE = 0x0404
"""Number of IPTC among Photoshop's resources, which JPEG and TIFF may hold."""

_TEXT_OF_OTHERS = ("XML:com.adobe.xmp", "Raw profile type ")
"""Beginnings of a PNG's keywords whose text is something else that is kept."""


@dataclass(frozen=True)
class Facts:
    """What a reader found beside the pixels.

    Attributes:
        info: as Pillow has it: `icc_profile`, `exif`, `xmp`, `dpi` and others.
        format: Pillow's name of the format.
        orientation: EXIF's, 1 to 8, still to be applied.
        entries: the directory of a TIFF's page.
        coding: how the colors are coded, where the file says it by numbers.
    """

    info: dict[Any, Any]
    format: str | None = None
    orientation: int = 1
    entries: tuple[tags.Entry, ...] = ()
    coding: Coding | None = None


def facts_of(image: ImageFileType, source: Source) -> Facts:
    """Return what Pillow found, and what it does not tell, of the frame that it is at."""
    coding = None
    if image.format == "PNG":
        with source.stream() as file:
            chunk = find_chunk(file, b"cICP")
        if chunk is not None and len(chunk) == 4 and chunk[2:] == b"\0\1":  # RGB, full range: all that PNG allows
            coding = Coding(chunk[0], chunk[1])
    try:
        orientation = int(image.getexif().get(tags.ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not cost the picture
        orientation = 1
    return Facts(image.info, image.format, orientation, _directory(image, source), coding)


def with_notes(picture: Picture, facts: Facts, name: str, *, turned: bool = False) -> Picture:
    """Return a picture with what its file says beside its pixels, and turned upright.

    Args:
        picture: the decoded pixels; its ICC profile is that of the file, or None where it was converted.
        facts: what was found.
        name: what warnings call the file.
        turned: whether the picture is upright already.
    """
    if facts.orientation in range(2, 9) and not turned:
        picture = replace(
            picture,
            color=_turned(picture.color, facts.orientation),
            alpha=None if picture.alpha is None else _turned(picture.alpha, facts.orientation),
        )
    icc, coding = _colors(picture, facts)
    xmp, dpi = facts.info.get("xmp"), facts.info.get("dpi")
    return replace(
        picture,
        icc=icc,
        coding=coding,
        exif=_exif(facts, name),
        xmp=_upright_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp)) if xmp else None,
        iptc=_iptc(facts),
        text=_text(facts),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < float(side) < 1e6 for side in dpi) else None,
    )


def resized(picture: Picture, name: str) -> Picture:
    """Return a picture whose EXIF and XMP blocks tell its own size."""
    height, width = picture.color.shape[:2]
    block, xmp = picture.exif, picture.xmp
    if block is not None:
        try:
            block = tags.resized(block, width, height)
        except (ValueError, KeyError, struct.error) as error:
            logger.warning("%s: EXIF left out, it is damaged (%s)", name, error)
            block = None
    if xmp is not None:
        for word, size in ((b"PixelXDimension", width), (b"PixelYDimension", height)):
            xmp = _with_number(xmp, b"exif:" + word, size)
        for word, size in ((b"ImageWidth", width), (b"ImageLength", height)):
            xmp = _with_number(xmp, b"tiff:" + word, size)
    return replace(picture, exif=block, xmp=xmp)


def _colors(picture: Picture, facts: Facts) -> tuple[bytes | None, Coding | None]:
    """Return the ICC profile of a picture's colors, or how they are coded if they are HDR."""
    if facts.coding is not None:
        if facts.coding.is_hdr:
            return None, facts.coding
        return profile_of_coding(facts.coding, grey=picture.is_grey), None
    if facts.format == "PNG" and not picture.icc:
        return profile_of_png(facts.info, grey=picture.is_grey), None
    return picture.icc, None


def _directory(image: Any, source: Source) -> tuple[tags.Entry, ...]:  # noqa: ANN401 - Pillow's file
    """Return the entries of the page of a TIFF that Pillow is at; empty for what is none."""
    if image.format != "TIFF":
        return ()
    try:
        with source.stream() as file:
            return tags.read_directory(file, image.tag_v2.offset)
    except (ValueError, KeyError, struct.error, AttributeError, OSError):
        return ()


def _exif(facts: Facts, name: str) -> bytes | None:
    """Return the EXIF block, upright."""
    try:
        block = tags.block_of(facts.entries) if facts.entries else facts.info.get("exif")
        profile = facts.info.get("Raw profile type exif")
        if block is None and isinstance(profile, str):  # of a PNG that ImageMagick wrote
            block = bytes.fromhex("".join(profile.split("\n")[3:]))
        return tags.upright(bytes(block)) if block else None
    except Exception as error:  # a damaged EXIF block must not cost the picture
        logger.warning("%s: EXIF left out, it is damaged (%s)", name, error or type(error).__name__)
        return None


def _iptc(facts: Facts) -> bytes | None:
    for entry in facts.entries:
        if entry.tag == tags.IPTC:
            return entry.value
    resources: Any = facts.info.get("photoshop")
    found = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return found if isinstance(found, bytes) and found else None


def _text(facts: Facts) -> tuple[tuple[str, str], ...]:
    if facts.format == "PNG":  # Pillow's `text` would decode a picture that is to be read from disk
        texts = ((key, value) for key, value in facts.info.items() if isinstance(key, str) and isinstance(value, str))
        return tuple((key, str(value)) for key, value in texts if not key.startswith(_TEXT_OF_OTHERS))
    comment = facts.info.get("comment")
    if isinstance(comment, bytes):
        comment = comment.decode("utf-8", "replace")
    return (("Comment", comment.rstrip("\0")),) if isinstance(comment, str) and comment.strip("\0 ") else ()


def _upright_xmp(xmp: bytes) -> bytes:
    return _with_number(xmp, b"tiff:Orientation", 1)


def _with_number(xmp: bytes, word: bytes, number: int) -> bytes:
    """Return an XMP packet with another number, where it says one, as an attribute or as an element."""
    return re.sub(rb"(" + word + rb"\s*(?:=\s*[\"']|>)\s*)\d+", rb"\g<1>" + str(number).encode(), xmp)


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (2 to 8)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)

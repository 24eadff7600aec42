"""What an image file says beside its pixels: read from what Pillow has opened, and brought up to date."""

from __future__ import annotations

import logging
import re
import struct
from dataclasses import replace
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


def with_notes(picture: Picture, image: ImageFileType, source: Source, *, turned: bool = False) -> Picture:
    """Return a picture with what its file says beside its pixels, and turned upright.

    Args:
        picture: the decoded pixels.
        image: the file, whose header and pixels were read.
        source: the file again.
        turned: whether the picture is upright already.
    """
    orientation = _orientation(image)
    if orientation in range(2, 9) and not turned:
        picture = replace(
            picture,
            color=_turned(picture.color, orientation),
            alpha=None if picture.alpha is None else _turned(picture.alpha, orientation),
        )
    entries = _directory(image, source)
    icc, coding = _colors(picture, image, source)
    xmp, dpi = image.info.get("xmp"), image.info.get("dpi")
    return replace(
        picture,
        icc=icc,
        coding=coding,
        exif=_exif(image, entries, source.name),
        xmp=_upright_xmp(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else None,
        iptc=_iptc(image, entries),
        text=_text(image),
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


def _colors(picture: Picture, image: ImageFileType, source: Source) -> tuple[bytes | None, Coding | None]:
    """Return the ICC profile of a picture's colors, or how they are coded if they are HDR."""
    if image.format != "PNG":
        return picture.icc, None
    with source.stream() as file:
        chunk = find_chunk(file, b"cICP")
    if chunk is not None and len(chunk) == 4 and chunk[2:] == b"\0\1":  # RGB, the full range: all that PNG allows
        return of_coding(Coding(chunk[0], chunk[1]), grey=picture.is_grey)
    return picture.icc or profile_of_png(image.info, grey=picture.is_grey), None


def of_coding(coding: Coding, *, grey: bool) -> tuple[bytes | None, Coding | None]:
    """Return the ICC profile of coded colors, or the coding again if they are HDR."""
    return (None, coding) if coding.is_hdr else (profile_of_coding(coding, grey=grey), None)


def _orientation(image: ImageFileType) -> int:
    try:
        return int(image.getexif().get(tags.ORIENTATION, 1))
    except Exception:  # a damaged EXIF block must not cost the picture
        return 1


def _directory(image: Any, source: Source) -> tuple[tags.Entry, ...]:  # noqa: ANN401 - Pillow's file
    """Return the entries of the page of a TIFF that Pillow is at; empty for what is none."""
    if image.format != "TIFF":
        return ()
    try:
        with source.stream() as file:
            return tags.read_directory(file, image.tag_v2.offset)
    except (ValueError, KeyError, struct.error, AttributeError, OSError):
        return ()


def _exif(image: ImageFileType, entries: tuple[tags.Entry, ...], name: str) -> bytes | None:
    """Return the EXIF block, upright."""
    try:
        block = tags.block_of(entries) if entries else image.info.get("exif")
        profile = image.info.get("Raw profile type exif")
        if block is None and isinstance(profile, str):  # of a PNG that ImageMagick wrote
            block = bytes.fromhex("".join(profile.split("\n")[3:]))
        return tags.upright(bytes(block)) if block else None
    except Exception as error:  # a damaged EXIF block must not cost the picture
        logger.warning("%s: EXIF left out, it is damaged (%s)", name, error or type(error).__name__)
        return None


def _iptc(image: ImageFileType, entries: tuple[tags.Entry, ...]) -> bytes | None:
    for entry in entries:
        if entry.tag == tags.IPTC:
            return entry.value
    resources: Any = image.info.get("photoshop")
    found = resources.get(_IPTC_RESOURCE) if isinstance(resources, dict) else None
    return found if isinstance(found, bytes) and found else None


def _text(image: ImageFileType) -> tuple[tuple[str, str], ...]:
    if image.format == "PNG":  # its `text` would decode a picture that is to be read from disk
        texts = ((key, value) for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str))
        return tuple((key, str(value)) for key, value in texts if not key.startswith(_TEXT_OF_OTHERS))
    comment = image.info.get("comment")
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

"""HEIC and HEIF, by pillow-heif: what phones take."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import IgnnError, ImageReadError
from .color import Coding
from .extra import load_library
from .notes import Facts, with_notes
from .picture import ImageFile, Picture, from_array, unmultiplied
from .source import Source

logger = logging.getLogger("ignn")

SUFFIXES = (".heic", ".heif", ".hif")

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AV1_BRANDS = {b"avif", b"avis"}


def is_heif(head: bytes) -> bool:
    """Return whether a file that begins so is a HEIF whose pixels are not AV1, which Pillow reads."""
    if head[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, end, 4))}
    return bool(brands & _BRANDS) and not brands & _AV1_BRANDS


def read_heif(source: Source) -> ImageFile:
    """Read the main picture of a HEIF, turned as it says; 10 and 12 bits become 16.

    Raises:
        ImageReadError: it is damaged.
        ImageTooLargeError: more pixels than the limit.
        BackendUnavailableError: pillow-heif is not installed.
    """
    library = load_library("pillow_heif", source, "a HEIC")
    with source.stream() as file:
        try:
            content = library.open_heif(file, convert_hdr_to_8bit=False)
            width, height = content.size
            source.check(f"{width} x {height} = ", width * height)
            values = np.asarray(content)
        except IgnnError:
            raise
        except Exception as error:  # it raises nearly anything
            reason = " ".join(str(error).split())  # libheif's may have several lines
            if "unsupported" in reason.lower():
                raise ImageReadError(
                    f"{source.name} is a HEIC of a kind that libheif does not read ({reason}). Convert it to PNG."
                ) from error
            raise ImageReadError(f"{source.name} is damaged or truncated ({reason}). Replace it.") from error
    if len(content) > 1:
        logger.warning("%s: its first picture alone is read", source.name)
    info = content.info
    facts = Facts(dict(info), "HEIF", coding=_coding(info))
    picture = _picture(values, info.get("icc_profile"), premultiplied=content.premultiplied_alpha)
    return ImageFile([with_notes(picture, facts, source.name, turned=True)], [], format="HEIF")


def _picture(values: NDArray[Any], icc: bytes | None, *, premultiplied: bool) -> Picture:
    picture = replace(from_array(np.ascontiguousarray(values)), icc=icc)
    if premultiplied and picture.alpha is not None:
        picture = replace(picture, color=unmultiplied(picture.color, picture.alpha))
    return picture


def _coding(info: dict[str, Any]) -> Coding | None:
    """Return how the colors are coded, where the file says it by numbers and not by a profile."""
    numbers = info.get("nclx_profile")
    if not numbers:
        return None
    coding = Coding(int(numbers["color_primaries"]), int(numbers["transfer_characteristics"]))
    return None if info.get("icc_profile") and not coding.is_hdr else coding

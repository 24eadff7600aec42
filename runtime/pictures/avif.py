"""What an AVIF says of its colors, and Pillow does not: Pillow reads every AVIF as 8 bits of plain color."""

from __future__ import annotations

import logging

from ..errors import ImageReadError
from .source import Source

logger = logging.getLogger("ignn")

_HEADER_BYTES = 1 << 16
_HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}
"""Transfer characteristics (ITU-T H.273) whose values mean something else than those of an ordinary picture."""


def check_coding(source: Source) -> None:
    """Say that an AVIF of more than 8 bits is read with 8.

    Raises:
        ImageReadError: its colors are of high dynamic range.
    """
    with source.stream() as file:
        header = file.read(_HEADER_BYTES)
    place = header.find(b"colrnclx")
    coding = _HIGH_DYNAMIC_RANGE.get(int.from_bytes(header[place + 10 : place + 12], "big")) if place >= 0 else None
    if coding is not None:
        raise ImageReadError(
            f"{source.name} holds colors of high dynamic range ({coding}), which Pillow would read as ordinary ones. "
            "Convert it first: avifdec --depth 16 IN.avif OUT.png"
        )
    place = header.find(b"av1C")
    if place >= 0 and len(header) > place + 6 and header[place + 6] & 0x40:
        logger.warning("%s: an AVIF of 10 or 12 bits is read with 8", source.name)

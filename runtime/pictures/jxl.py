"""JPEG XL, by pyjpegxl."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from ..errors import ImageReadError
from .color import Coding
from .extra import load_library
from .notes import Facts, with_notes
from .picture import ImageFile, Picture, from_array
from .source import Source

SUFFIXES = (".jxl",)

_SRGB = Coding(1, 13)
"""What libjxl writes into the profile that it makes for a file without one."""

_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"


def is_jxl(head: bytes) -> bool:
    """Return whether a file that begins so is a JPEG XL."""
    return head.startswith((_CODESTREAM, _CONTAINER))


def read_jxl(source: Source) -> ImageFile:
    """Read a JPEG XL of 8 or 16 bits, or of floats 0..1, turned as it says.

    Raises:
        ImageReadError: it is damaged, an animation, or CMYK.
        ImageTooLargeError: more pixels than the limit.
        InvalidImageError: floats outside 0..1.
        BackendUnavailableError: pyjpegxl is not installed.
    """
    library = load_library("pyjpegxl", source, "a JPEG XL")
    content = source.content()
    try:
        found = library.probe(content)
        source.check(f"{found.width} x {found.height} = ", found.width * found.height)
        if _is_animation(content):
            raise ImageReadError(
                f"{source.name} is an animation, and pyjpegxl reads one picture. Convert it first: djxl IN.jxl OUT.apng"
            )
        if found.icc is not None and found.icc[16:20] == b"CMYK":
            raise ImageReadError(f"{source.name} holds CMYK, which pyjpegxl does not read. Convert it to PNG.")
        found, values = library.decode_to_numpy(content)
    except (RuntimeError, ValueError, OSError) as error:  # their texts are about building libjxl
        raise ImageReadError(f"{source.name} is damaged or truncated. Replace it.") from error
    picture = from_array(values[..., : found.num_color_channels])
    if found.has_alpha:
        picture = replace(picture, alpha=from_array(values[..., found.num_color_channels]).color[..., 0])
    return ImageFile([_noted(picture, found.icc, found.exif, found.xmp, source.name)], [], format="JXL")


def _noted(picture: Picture, icc: bytes | None, exif: bytes | None, xmp: bytes | None, name: str) -> Picture:
    coding = _coding(icc) if icc else None
    if coding is None:
        picture = replace(picture, icc=icc)
    return with_notes(picture, Facts({"exif": exif, "xmp": xmp}, "JXL", coding=coding), name, turned=True)


def _coding(icc: bytes) -> Coding | None:
    """Return the coding that the profile's tag `cicp` tells, if it is HDR or sRGB, which need no profile."""
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        for row in range(min(count, 100)):
            tag, place, size = struct.unpack_from(">4sII", icc, 132 + 12 * row)
            if tag == b"cicp" and size >= 12:
                coding = Coding(icc[place + 8], icc[place + 9])
                return coding if coding.is_hdr or coding == _SRGB else None
    except (struct.error, IndexError):
        pass
    return None


def _is_animation(content: bytes) -> bool:
    """Return whether the header says so (ISO/IEC 18181-1, D.3): pyjpegxl does not, and reads the last frame."""
    bits = _bits(_codestream(content)[2:66])

    def take(count: int) -> int:
        return sum(next(bits, 0) << place for place in range(count))

    def skip_size() -> None:
        small = take(1)
        take(5 if small else (9, 13, 18, 30)[take(2)])
        if take(3) == 0:  # no ratio: the width is told too
            take(5 if small else (9, 13, 18, 30)[take(2)])

    skip_size()
    if take(1) or not take(1):  # all as usual, or nothing but the depth and the colors
        return False
    take(3)  # orientation
    if take(1):  # size to show it at
        skip_size()
    return take(1) == 0 and take(1) == 1  # no encoder writes a preview, which would stand in between


def _bits(data: bytes) -> Iterator[int]:
    return (octet >> place & 1 for octet in data for place in range(8))


def _codestream(content: bytes) -> bytes:
    """Return the begin of the codestream, without or within a container of boxes; empty if there is none."""
    if content.startswith(_CODESTREAM):
        return content[:128]
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        head = 8
        if size == 1 and place + 16 <= len(content):
            (size,), head = struct.unpack_from(">Q", content, place + 8), 16
        if kind in (b"jxlc", b"jxlp"):
            begin = place + head + (4 if kind == b"jxlp" else 0)
            return content[begin : begin + 128]
        if size < head:
            break
        place += size
    return b""

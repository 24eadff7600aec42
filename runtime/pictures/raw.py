"""Raw files of cameras, developed by LibRaw (rawpy)."""

from __future__ import annotations

import logging
import struct
from typing import BinaryIO

from ..errors import ImageReadError
from . import exif as tags
from .extra import load_library
from .notes import Facts, with_notes
from .picture import ImageFile, from_array
from .source import Source

logger = logging.getLogger("ignn")

SUFFIXES = tuple(
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srw .x3f".split()  # noqa: SIM905
)
"""Suffixes of raw files."""

_MAGICS = (b"FUJIFILMCCD-RAW", b"FOVb", b"IIRO", b"IIRS", b"MMOR", b"IIU\0")
"""First bytes of RAF, X3F, ORF and RW2."""

_PHOTOMETRIC, _SUB_DIRECTORIES = 262, 330
_RAW_PHOTOMETRICS = (32803, 34892)
"""A mosaic of colors, and one that is joined already."""

_SRGB_GAMMA = (2.4, 12.92)


def is_raw(file: BinaryIO) -> bool:
    """Return whether an open file is a raw one; the place in it is not kept."""
    file.seek(0)
    head = file.read(16)
    if head.startswith(_MAGICS) or head[4:12] == b"ftypcrx ":
        return True
    if head[:4] not in tags.MAGICS:
        return False
    if head[8:10] == b"CR":
        return True
    try:
        return any(_is_raw_directory(file, place) for place in (None, *_below(file)))
    except (ValueError, KeyError, struct.error):
        return False


def read_raw(source: Source) -> ImageFile:
    """Develop a raw file to sRGB of 16 bits, by the camera's white balance and turned as it says.

    Raises:
        ImageReadError: it is damaged, or of a camera that LibRaw does not know.
        ImageTooLargeError: more pixels than the limit.
        BackendUnavailableError: rawpy is not installed.
    """
    library = load_library("rawpy", source, "a raw file of a camera")
    with source.stream() as file:
        try:
            with library.imread(file) as raw:
                width, height = raw.sizes.raw_width, raw.sizes.raw_height
                source.check(f"{width} x {height} = ", width * height)
                values = raw.postprocess(
                    use_camera_wb=True, output_color=library.ColorSpace.sRGB, output_bps=16, gamma=_SRGB_GAMMA
                )
        except library.LibRawFileUnsupportedError as error:
            raise ImageReadError(
                f"{source.name} is a raw file that LibRaw {'.'.join(map(str, library.libraw_version))} does not read. "
                "Convert it to DNG."
            ) from error
        except library.LibRawError as error:
            reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
            raise ImageReadError(f"{source.name} is damaged or truncated ({reason}). Replace it.") from error
        facts = Facts({}, "RAW", entries=_entries(file, source.name))
    return ImageFile([with_notes(from_array(values), facts, source.name, turned=True)], [], format="RAW")


def _entries(file: BinaryIO, name: str) -> tuple[tags.Entry, ...]:
    """Return the EXIF entries of a raw file that is laid out as a TIFF."""
    try:
        found = tags.read_directory(file)
    except (ValueError, KeyError, struct.error):
        logger.warning("%s: EXIF left out, it is not read from this kind of raw file", name)
        return ()
    return tuple(entry for entry in found if entry.tag >= 270)  # those below are Panasonic's own


def _below(file: BinaryIO) -> list[int]:
    """Return where the directories are that the first one points to."""
    for entry in tags.read_directory(file):
        if entry.tag == _SUB_DIRECTORIES and entry.kind in (4, 13):
            return [place for (place,) in struct.iter_unpack("<I", entry.value)][:8]
    return []


def _is_raw_directory(file: BinaryIO, place: int | None) -> bool:
    return any(
        entry.tag == _PHOTOMETRIC and int.from_bytes(entry.value[:2], "little") in _RAW_PHOTOMETRICS
        for entry in tags.read_directory(file, place)
    )

"""EXIF blocks and the directories of TIFF files, as bytes: what need not change stays as it is.

Libraries decode every value and encode it again, which costs text that is not ASCII and the notes of camera makers,
whose own offsets count from the block's begin.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

PREFIX = b"Exif\0\0"
ORIENTATION, WIDTH, HEIGHT = 0x0112, 0xA002, 0xA003
XMP, IPTC, RESOURCES = 700, 33723, 34377
EXIF_DIRECTORY = 0x8769
DIRECTORIES = {EXIF_DIRECTORY: "Exif", 0x8825: "GPS", 0xA005: "Interoperability"}
"""Tags whose value is the place of another directory."""

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF and of a BigTIFF."""

LAYOUT_TAGS = frozenset(range(254, 347)) - {270, 271, 272, 274, 305, 306, 315, 316} | {
    330,  # other directories, such as a raw file's
    347,
    512,
    *range(513, 533),
    XMP,
    *range(33421, 33424),  # a raw file's mosaic
    IPTC,
    RESOURCES,
    34675,
    *range(50706, 51200),  # a DNG's own
}
"""Tags of a TIFF's own directory that say how *its* pixels are stored, or that are kept beside the EXIF block."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value, by the number of its type."""

_WORDS = {5: 4, 10: 4}
"""Bytes that are turned round together, where it is not the whole value: rationals are two numbers."""

_MOST_ENTRIES = 4096


@dataclass(frozen=True)
class Entry:
    """One entry of a directory.

    Attributes:
        tag, kind, count: as in the file; `kind` is the number of the type.
        value: its bytes, little-endian.
        directory: the entries of the directory that it points to, instead of a value.
    """

    tag: int
    kind: int
    count: int
    value: bytes = b""
    directory: tuple[Entry, ...] | None = None


@dataclass(frozen=True)
class _Row:
    """Where an entry lies: its row in the directory, and its value."""

    tag: int
    kind: int
    count: int
    place: int
    value_place: int


class _Reader:
    """Reads the directories of a TIFF file or of an EXIF block without its prefix.

    Raises:
        ValueError, struct.error: it is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = self._at(0, 8)
        if header[:2] not in (b"II", b"MM"):
            raise ValueError("no TIFF header")
        self.order = "<" if header[:2] == b"II" else ">"
        (magic,) = struct.unpack(self.order + "H", header[2:4])
        self.big = magic == 43
        self._offset = "Q" if self.big else "I"
        self.first = self.number(8, "Q") if self.big else self.number(4, "I")

    def number(self, place: int, kind: str) -> int:
        value: int = struct.unpack(self.order + kind, self._at(place, struct.calcsize("<" + kind)))[0]
        return value

    def rows(self, place: int) -> Iterator[_Row]:
        """Yield the rows of the directory at a place."""
        head, step, room = (8, 20, 8) if self.big else (2, 12, 4)
        count = self.number(place, "Q" if self.big else "H")
        if count > _MOST_ENTRIES:
            raise ValueError(f"a directory of {count} entries")
        for row in range(place + head, place + head + step * count, step):
            tag, kind = self.number(row, "H"), self.number(row + 2, "H")
            number = self.number(row + 4, self._offset)
            inline = row + step - room
            outside = number * _SIZES.get(kind, 1) > room
            yield _Row(tag, kind, number, row, self.number(inline, self._offset) if outside else inline)

    def next_place(self, place: int) -> int:
        """Return where the place of the following directory is written."""
        head, step = (8, 20) if self.big else (2, 12)
        return place + head + step * self.number(place, "Q" if self.big else "H")

    def value(self, row: _Row) -> bytes:
        return self._at(row.value_place, row.count * _SIZES.get(row.kind, 1))

    def integer(self, row: _Row) -> int:
        """Return the first value of an entry of whole numbers."""
        return self.number(row.value_place, {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}[row.kind])

    def entries(self, place: int, depth: int = 0) -> tuple[Entry, ...]:
        """Return a directory with those that it points to; entries that lie outside the file are left out."""
        found = []
        for row in self.rows(place):
            try:
                if row.tag in DIRECTORIES and depth < 3:
                    found.append(Entry(row.tag, 4, 1, directory=self.entries(self.integer(row), depth + 1)))
                elif row.kind in _SIZES and row.kind < 14:
                    value = _little(self.value(row), row.kind, self.order)
                    found.append(Entry(row.tag, row.kind, row.count, value))
            except (ValueError, KeyError, struct.error):
                continue
        return tuple(found)

    def _at(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("it ends too early")
        return data


def read_directory(file: BinaryIO, place: int | None = None) -> tuple[Entry, ...]:
    """Return a directory of a TIFF file, with those that it points to.

    Args:
        file: the TIFF file.
        place: where the directory begins; None: the first one.

    Raises:
        ValueError, struct.error: it is damaged.
    """
    reader = _Reader(file)
    return reader.entries(reader.first if place is None else place)


def block_of(entries: tuple[Entry, ...]) -> bytes | None:
    """Return the EXIF block of a TIFF's directory, less what describes the TIFF's own pixels; None if none is left."""
    kept = tuple(entry for entry in entries if entry.tag not in LAYOUT_TAGS)
    return PREFIX + b"II*\0\x08\0\0\0" + _packed(kept, 8) if kept else None


def entries_of(block: bytes) -> tuple[Entry, ...]:
    """Return the entries of an EXIF block. Raises as `read_directory`."""
    return read_directory(io.BytesIO(block.removeprefix(PREFIX)))


def upright(block: bytes) -> bytes:
    """Return an EXIF block that says "upright", without the thumbnail.

    Raises:
        ValueError, struct.error: it is damaged.
    """
    data = bytearray(block.removeprefix(PREFIX))
    reader = _Reader(io.BytesIO(bytes(data)))
    for row in reader.rows(reader.first):
        if row.tag == ORIENTATION:
            _set_integer(data, reader, row, 1)
    following = reader.next_place(reader.first)
    thumbnail = reader.number(following, "I") if following + 4 <= len(data) else 0
    if thumbnail:
        data[following : following + 4] = bytes(4)
        with suppress(ValueError, KeyError, struct.error):  # nobody finds it any more
            _drop_thumbnail(data, reader, thumbnail)
    return PREFIX + bytes(data)


def resized(block: bytes, width: int, height: int) -> bytes:
    """Return an EXIF block with the size of another picture, where it says one. Raises as `upright`."""
    data = bytearray(block.removeprefix(PREFIX))
    reader = _Reader(io.BytesIO(bytes(data)))
    for pointer in reader.rows(reader.first):
        if pointer.tag == EXIF_DIRECTORY:
            for row in reader.rows(reader.integer(pointer)):
                if row.tag in (WIDTH, HEIGHT):
                    _set_integer(data, reader, row, width if row.tag == WIDTH else height)
    return PREFIX + bytes(data)


def without_orientation(block: bytes) -> bytes:
    """Return an EXIF block without that tag, which means "upright" too. Raises as `upright`."""
    data = bytearray(block.removeprefix(PREFIX))
    reader = _Reader(io.BytesIO(bytes(data)))
    rows = list(reader.rows(reader.first))
    place = next((row.place for row in rows if row.tag == ORIENTATION), None)
    if place is not None:
        end = reader.next_place(reader.first) + 4
        data[place : end - 12] = data[place + 12 : end]
        data[reader.first : reader.first + 2] = struct.pack(reader.order + "H", len(rows) - 1)
    return PREFIX + bytes(data)


def add_to_tiff(file: BinaryIO, entries: tuple[Entry, ...]) -> bool:
    """Add entries to the first directory of a TIFF file, which is open for reading and writing.

    What the directory has already stays. Returns False for a file that has no room for it: a BigTIFF, or one of nearly
    4 GB.
    """
    reader = _Reader(file)
    end = file.seek(0, io.SEEK_END)
    if reader.big or end > 4_200_000_000:
        return False
    taken = list(reader.rows(reader.first))
    new = [entry for entry in entries if entry.tag not in {row.tag for row in taken}]
    following = reader.number(reader.next_place(reader.first), "I")
    begin = end + end % 2
    old = []
    for row in taken:
        file.seek(row.place)
        old.append((row.tag, file.read(12)))
    file.seek(end)
    file.write(bytes(end % 2) + _packed(tuple(new), begin, reader.order, old, following))
    file.seek(4)
    file.write(struct.pack(reader.order + "I", begin))
    return True


def _packed(
    entries: tuple[Entry, ...],
    begin: int,
    order: str = "<",
    old: list[tuple[int, bytes]] | None = None,
    following: int = 0,
) -> bytes:
    """Return a directory's bytes, with all that it points to.

    Args:
        entries: what it holds.
        begin: where the bytes will lie.
        order: byte order.
        old: rows that are whole already, each with its tag.
        following: where the next directory is.
    """
    rows = list(old or [])
    body_begin = begin + 2 + 12 * (len(rows) + len(entries)) + 4
    body = b""
    for entry in entries:
        place = body_begin + len(body)
        if entry.directory is not None:
            body += _packed(entry.directory, place, order)
            value = struct.pack(order + "I", place)
        else:
            value = _little(entry.value, entry.kind, order)
            if len(value) > 4:
                body += value + bytes(len(value) % 2)
                value = struct.pack(order + "I", place)
        head = struct.pack(order + "HHI", entry.tag, entry.kind, entry.count)
        rows.append((entry.tag, head + value.ljust(4, b"\0")))
    table = b"".join(row for _, row in sorted(rows))
    return struct.pack(order + "H", len(rows)) + table + struct.pack(order + "I", following) + body


def _little(value: bytes, kind: int, order: str) -> bytes:
    """Turn the bytes of each number round, from big-endian to little-endian or back."""
    size = _WORDS.get(kind, _SIZES[kind])
    if order == "<" or size == 1:
        return value
    return b"".join(value[place : place + size][::-1] for place in range(0, len(value), size))


def _set_integer(data: bytearray, reader: _Reader, row: _Row, value: int) -> None:
    """Write a whole number into an entry, if its type holds it."""
    kind = {3: "H", 4: "I"}.get(row.kind)
    if kind is not None and value < 1 << (8 * _SIZES[row.kind]):
        struct.pack_into(reader.order + kind, data, row.value_place, value)


def _drop_thumbnail(data: bytearray, reader: _Reader, place: int) -> None:
    """Overwrite the thumbnail; cut it off if it lies at the end."""
    places = {row.tag: reader.integer(row) for row in reader.rows(place) if row.tag in (513, 514)}
    begin, size = places.get(513, 0), places.get(514, 0)
    if begin < reader.next_place(place) + 4:
        return  # not behind its directory: what it would overwrite is unknown
    size = min(size, len(data) - begin)
    data[begin : begin + size] = bytes(size)
    if begin + size == len(data):
        del data[begin:]

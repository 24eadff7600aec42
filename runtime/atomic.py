"""Write files so that they are whole or absent, whenever the process dies."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import IgnnError, WriteError

PART_SUFFIX = ".ignn-part"
"""Ending of the temporary files beside the outputs; only a killed process leaves one."""


@contextmanager
def atomic_path(path: Path, *, error: type[IgnnError] = WriteError) -> Iterator[Path]:
    """Give a temporary name beside `path`; the file becomes `path` if the block ends well, and vanishes if not.

    The folder is made if it is missing. The temporary name has an ending of its own: a library that chooses the format
    by the ending must be told the format.

    Args:
        path: the file to write.
        error: what to raise if the system refuses to write.

    Raises:
        WriteError: (or `error`) the file or its folder cannot be written.
    """
    temporary = path.parent / f".{shortened(path.name)}.{secrets.token_hex(4)}{PART_SUFFIX}"
    try:
        if path.exists() and not path.is_file():  # a folder; or a device or pipe, in whose place a file would be put
            raise error(f"Cannot write {path}: there is something that is not a file. Give another path.")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
    except OSError as refusal:
        raise error(_message(path, refusal)) from refusal
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as refusal:
        raise error(_message(path, refusal)) from refusal
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all.

    Raises:
        WriteError: the file or its folder cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if they are missing.

    Raises:
        WriteError: the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as refusal:
        raise WriteError(
            f"Cannot make the folder {path}: {refusal.strerror or refusal}. Give another one."
        ) from refusal


def shortened(name: str) -> str:
    """Return as much of a file's name as leaves room for an ending: systems take names of 255 bytes."""
    return name.encode(errors="surrogateescape")[:100].decode(errors="ignore")


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that a killed process left beside `path`."""
    for leftover in path.parent.glob(f".{glob.escape(shortened(path.name))}.????????{PART_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _message(path: Path, refusal: OSError) -> str:
    return f"Cannot write {path}: {refusal.strerror or refusal}. Give another path, or make room there."

"""Files that are whole or absent."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ImageWriteError

PART_SUFFIX = ".ignn-part"
"""Ending of the temporary files beside the outputs; only a killed process leaves one."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name in the folder of `path`, which becomes `path` if the block ends well and vanishes if not.

    Raises:
        ImageWriteError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}{PART_SUFFIX}"
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise ImageWriteError(f"Cannot write {path}: {error.strerror or error}. Choose another -o.") from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ImageWriteError(f"Cannot write {path}: {error.strerror or error}. Choose another -o.") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that a killed process left beside `path`."""
    for leftover in path.parent.glob(f".{glob_escape(path.name[:100])}.????????{PART_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def glob_escape(name: str) -> str:
    """The name with the characters that `glob` takes for patterns escaped."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)

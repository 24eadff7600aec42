"""Folders of pictures on disks and in object stores: whatever `pyarrow.fs` opens."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from ..atomic import PART_SUFFIX
from ..clone import install_command
from ..errors import BackendUnavailableError, StorageError

MARKS = ".ignn-done"
"""Folder beside the outputs, with an empty file for each output that is whole: `<hash of its name>-<its key>`."""


@dataclass(frozen=True)
class Entry:
    """A file in a folder.

    Attributes:
        name: path below the folder, with slashes.
        size: bytes.
        time: when it was changed, in nanoseconds.
    """

    name: str
    size: int
    time: int


class Folder:
    """One folder. It travels to other machines as its address.

    Args:
        address: a path, or a URI that `pyarrow.fs.FileSystem.from_uri` takes: `s3://bucket/folder`, `gs://...`. Options
            of the store follow a question mark, such as `?endpoint_override=http://127.0.0.1:9000`.

    Raises:
        BackendUnavailableError: pyarrow is not installed.
        StorageError: no such kind of address, or it cannot be reached.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            from pyarrow import fs
        except ImportError as error:
            raise BackendUnavailableError(
                f"pyarrow is not installed ({error}). Install it with: {install_command('batch')}"
            ) from error
        with _as_ours(address):
            if "://" in address:
                self._system, self._root = fs.FileSystem.from_uri(address)
            else:
                self._system, self._root = fs.LocalFileSystem(), os.path.abspath(address)
            if not self._root:
                raise ValueError("it names no bucket")
        self._fs = fs

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process may have another working folder.
        return Folder, (self.address if "://" in self.address else os.path.abspath(self.address),)

    def list(self, below: str = "") -> list[Entry]:
        """Return all files in the folder and below it, by name; none where there is no folder.

        Raises:
            StorageError: the store refuses.
        """
        root = self._path(below)
        with _as_ours(self.address):
            found = self._system.get_file_info(self._fs.FileSelector(root, recursive=True, allow_not_found=True))
        files = [info for info in found if info.type == self._fs.FileType.File]
        names = [PurePosixPath(info.path).relative_to(root).as_posix() for info in files]
        entries = [Entry(name, info.size, info.mtime_ns or 0) for name, info in zip(names, files, strict=True)]
        return sorted(entries, key=lambda entry: entry.name)

    def is_folder(self) -> bool:
        """Return whether there is such a folder, or anything below such a name.

        Raises:
            StorageError: the store refuses.
        """
        with _as_ours(self.address):
            return bool(self._system.get_file_info(self._root).type == self._fs.FileType.Directory)

    def lies_in(self, other: Folder) -> bool:
        """Return whether this folder is another, or below it."""
        same = self._system.equals(other._system)
        return bool(same) and PurePosixPath(self._root).is_relative_to(PurePosixPath(other._root))

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        with _as_ours(self._shown(name)):
            return bool(self._system.get_file_info(self._path(name)).type == self._fs.FileType.File)

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            StorageError: there is none, or the store refuses.
        """
        with _as_ours(self._shown(name)), self._system.open_input_stream(self._path(name)) as file:
            return bytes(file.read())

    def open(self, name: str) -> BinaryIO:
        """Open a file to read parts of it.

        Raises:
            StorageError: there is none, or the store refuses.
        """
        with _as_ours(self._shown(name)):
            return cast(BinaryIO, self._system.open_input_file(self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file, which is whole or absent at any moment; the folders above it are made.

        Raises:
            StorageError: the store refuses.
        """
        path = self._path(name)
        with _as_ours(self._shown(name)):
            if self._system.type_name in ("s3", "gcs"):  # an object appears when its upload ends
                with self._system.open_output_stream(path) as file:
                    file.write(content)
                return
            folder = PurePosixPath(path).parent
            self._system.create_dir(str(folder), recursive=True)
            temporary = str(folder / f".{secrets.token_hex(8)}{PART_SUFFIX}")
            try:
                with self._system.open_output_stream(temporary) as file:
                    file.write(content)
                self._system.move(temporary, path)
            except BaseException:
                with suppress(OSError):
                    self._system.delete_file(temporary)
                raise

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""
        for name in names:
            with _as_ours(self._shown(name)), suppress(FileNotFoundError):
                self._system.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _shown(self, name: str) -> str:
        return f"{self.address.partition('?')[0].rstrip('/')}/{name}"


def key_of(source: Entry, settings: str) -> str:
    """Return a hash of everything that decides an output: the source's name, size and time, and the settings."""
    return _hash(json.dumps([source.name, source.size, source.time, settings]))


def mark_of(target: str, key: str) -> str:
    """Return the name of the file that says that the output `target` is whole, and of this key."""
    return f"{MARKS}/{_hash(target)}-{key}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


@contextmanager
def _as_ours(shown: str) -> Iterator[None]:
    """Raise what pyarrow raises as an error of ours that names what the user gave."""
    try:
        yield
    except (OSError, ValueError) as error:  # of pyarrow: ArrowInvalid, which is a ValueError, and OSErrors
        raise StorageError(
            f"Cannot use {shown}: {error}. A folder, or an address such as s3://bucket/folder, gs://bucket/folder or "
            "file:///folder is expected, with the store's own settings for its keys."
        ) from error

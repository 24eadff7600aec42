"""The list of finished outputs that `--resume` reads, so that it need not guess from names."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_path
from ..errors import ImageWriteError

FILE_NAME = ".ignn-journal.jsonl"
"""Name of the journal, which lies beside the outputs: one line of JSON for each output that is whole."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Work:
    """One output, with everything that decides what is in it.

    Attributes:
        source, target: the two files.
        settings: model, backend and options, as one string (`SuperResolver.settings` holds most of it).
    """

    source: Path
    target: Path
    settings: str

    def key(self) -> str:
        """Return a hash of the source's path, size and time, the target's name, and the settings.

        Raises:
            OSError: the source is not there.
        """
        state = self.source.stat()
        parts = [str(self.source.resolve()), state.st_size, state.st_mtime_ns, self.target.name, self.settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Journal:
    """The journal of one output folder. Safe to use from several threads.

    Args:
        folder: where the outputs go.
        resume: keep what earlier runs wrote down, those of every shard; otherwise begin anew.
        shard: `i/n` where the run is one of n that may go on at the same time: it has a file of its own.
    """

    def __init__(self, folder: Path, *, resume: bool, shard: str | None = None) -> None:
        self._path = folder / (FILE_NAME if shard is None else f".ignn-journal.{shard.replace('/', '-of-')}.jsonl")
        self._lock = threading.Lock()
        self._done: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(".ignn-journal*.jsonl")) if resume else ():
                self._read(path)
            with atomic_path(self._path) as temporary:  # a run killed here keeps what the one before wrote down
                temporary.write_text("".join(_line(key, digest) for key, digest in self._done.items()))
        except OSError as error:
            raise ImageWriteError(
                f"Cannot write {self._path}: {error.strerror or error}. Choose another -o."
            ) from error

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._done[str(entry["key"])] = str(entry["sha256"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # the line that was being written when the process was killed, or what the disk made of it

    def has(self, work: Work) -> bool:
        """Return whether the output is written down, and is still the file that was written."""
        try:
            expected = self._done.get(work.key())
            return expected is not None and sha256_of(work.target) == expected
        except OSError:
            return False

    def add(self, work: Work) -> None:
        """Write down that the output is whole. On return the line is on the disk."""
        line = _line(work.key(), sha256_of(work.target))
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _line(key: str, digest: str) -> str:
    return json.dumps({"key": key, "sha256": digest}) + "\n"

"""Inputs with their outputs, how each ended, and standard input and output among them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..pictures.write import format_of

STANDARD_INPUT, STANDARD_OUTPUT = Path("standard input"), Path("standard output")
"""What `-` stands for; these very objects, for a file may have such a name."""


@dataclass(frozen=True)
class Job:
    """One input and its output.

    Attributes:
        source: the input; `STANDARD_INPUT` for that.
        target: the output; `STANDARD_OUTPUT` for that.
        suffix: of standard output, the suffix of its format; None: the input's format.
    """

    source: Path
    target: Path
    suffix: str | None = None

    def check_format(self) -> None:
        """Raise `ImageWriteError` if the output's suffix names no format."""
        if self.target is not STANDARD_OUTPUT:
            format_of(self.target)


@dataclass(frozen=True)
class Outcome:
    """The end of a job.

    Attributes:
        error: None if the output is whole. A class that is not an `IgnnError` means a defect of ours.
        pixels: pixels of the output, of all its frames.
    """

    job: Job
    error: Exception | None
    pixels: int = 0


def outcomes(running: Iterable[tuple[Job, Future[int]]], *, ahead: int) -> Iterator[Outcome]:
    """Yield the outcomes of jobs that run in other threads, in their order.

    Args:
        running: jobs as they are begun, each with the pixels of its output to come.
        ahead: how many may run, or wait for an earlier one, while another is begun.
    """
    waiting: deque[tuple[Job, Future[int]]] = deque()

    def outcome() -> Outcome:
        job, result = waiting.popleft()
        error = result.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Outcome(job, error, 0 if error else result.result())

    for begun in running:
        waiting.append(begun)
        while waiting and (waiting[0][1].done() or len(waiting) > ahead):
            yield outcome()
    while waiting:
        yield outcome()


def is_stream(path: Path) -> bool:
    """Return whether an input is standard input or a pipe, which can be read once, from front to back."""
    try:
        return path is STANDARD_INPUT or path.is_fifo()
    except (OSError, ValueError):  # a name that no file can have: reading it says so
        return False


def read_stream(path: Path) -> bytes:
    """Return all that comes from standard input or a pipe."""
    return sys.stdin.buffer.read() if path is STANDARD_INPUT else path.read_bytes()


def write_standard_output(data: bytes) -> None:
    """Write a file's content to standard output."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def take_shard(jobs: list[Job], shard: str) -> list[Job]:
    """Return every n-th job, from the i-th on.

    Args:
        jobs: all jobs, the same for every shard.
        shard: `i/n`, i from 0 to n - 1. The shards of one n share no job, and together have all.

    Raises:
        UsageError: not such a pair.
    """
    parts = shard.split("/")
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        index, count = int(parts[0]), int(parts[1])
        if index < count:
            return jobs[index::count]
    raise UsageError(f"Invalid --shard ({shard!r}). i/n is expected, i from 0 to n - 1, such as 0/4.")

"""What a command line asks for: inputs with their outputs, and how each ended."""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageReadError, UsageError
from ..pictures.write import FORMATS, format_of
from .clip_streams import READABLE as CLIPS
from .clip_streams import SUFFIXES as CLIP_SUFFIXES

logger = logging.getLogger("ignn")

READABLE = {*FORMATS, ".jpe", ".jfif", ".ppm", ".pgm", ".pnm", ".tga", ".jp2", ".ico", ".avifs"}
"""Suffixes that are taken from folders; a file that is named is tried whatever its suffix."""

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


def find_jobs(
    names: list[str], output: str, *, recursive: bool = False, suffix: str | None = None, scale: int = 1
) -> list[Job]:
    """Find the jobs of a command line.

    Args:
        names: files, folders and patterns (`*.jpg`, `**/*.png`), as the user typed them; or `-` alone, standard input.
        output: a file for one input; a folder; a pattern with {stem}, {name}, {folder}, {suffix} or {scale}; or `-`,
            standard output, for one picture.
        recursive: take folders with everything below them, and mirror that below the output.
        suffix: suffix of the outputs; None: that of the input, or .png if that is not written.
        scale: what {scale} stands for.

    Raises:
        ImageReadError: nothing was found.
        UsageError: two inputs have one output, an output is an input, or the output fits neither inputs nor format.
    """
    if "-" in names:
        return [_job_of_standard_input(names, output, suffix)]
    found = [pair for name in names for pair in _find(name, recursive=recursive)]
    if not found:
        raise ImageReadError(
            f"No pictures in {', '.join(names)}. Supported suffixes are {', '.join(sorted(READABLE))}. "
            "For folders below give --recursive."
        )
    single = len(found) == 1 and not _is_folder(Path(names[0]))
    if output == "-":
        if not single or is_clip(found[0][0]):
            raise UsageError("-o - writes one picture to standard output. Name one picture, or give a folder.")
        own = _own_suffix(found[0][0])
        return [Job(found[0][0], STANDARD_OUTPUT, suffix or own)]
    _check_output(output, len(found) if not single else 1, suffix)
    jobs = [Job(source, _target(source, base, output, single, suffix, scale)) for source, base in found]
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        place = job.target.resolve()
        if place in sources:
            raise UsageError(f"{job.target} is an input as well. Choose another -o.")
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {job.source} would both become {job.target}. "
                "Use a pattern: -o 'out/{folder}/{name}.png'."
            )
        taken[place] = job.source
    return jobs


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


def is_single(names: list[str], jobs: list[Job]) -> bool:
    """Return whether the user named one file, and not several, a folder or a pattern."""
    return len(jobs) == 1 and (jobs[0].source is STANDARD_INPUT or Path(names[0]) == jobs[0].source)


def _job_of_standard_input(names: list[str], output: str, suffix: str | None) -> Job:
    if len(names) > 1:
        raise UsageError("- is standard input, which is enlarged alone. Leave out the other inputs.")
    if output == "-":
        return Job(STANDARD_INPUT, STANDARD_OUTPUT, suffix)
    target = Path(output)
    if "{" in output or not target.suffix or _is_folder(target):
        raise UsageError(f"Standard input has no name for -o {output}. Give a file, or - for standard output.")
    _check_output(output, 1, suffix)
    return Job(STANDARD_INPUT, target)


def _check_output(output: str, count: int, suffix: str | None) -> None:
    """Refuse an output that names one file for several inputs, or another format than the one asked for."""
    path = Path(output)
    named = path.suffix.lower()
    if named not in {*FORMATS, *CLIP_SUFFIXES} or _is_folder(path):
        return
    if count > 1 and "{" not in output:
        raise UsageError(
            f"-o {output} is one file, and there are {count} inputs. Give a folder, or a pattern: "
            f"-o '{path.with_name('{stem}')}{path.suffix}'."
        )
    if suffix is not None and (named not in FORMATS or FORMATS[named].pillow != FORMATS[suffix].pillow):
        raise UsageError(f"-o {output} and --format {suffix[1:]} name two formats. Leave out one of them.")


def _find(name: str, *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the files of one argument, each with the folder that it was found in or below."""
    path = Path(name)
    if _is_folder(path):
        yield from ((file, path) for file in _pictures_in(path, recursive=recursive))
    elif glob.has_magic(name) and not os.path.lexists(name):
        for match in sorted(glob.glob(name, recursive=True)):
            if Path(match).is_file():
                yield Path(match), Path(match).parent
    else:
        yield path, path.parent


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: reading or writing it says so
        return False


def _pictures_in(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the pictures in a folder; a folder below it that cannot be read is left out, with a word."""

    def refused(error: OSError) -> None:
        if error.filename == str(folder):
            raise ImageReadError(f"The folder {folder} cannot be read: {error.strerror}. Give another one.") from error
        logger.warning("left out the folder %s: %s", error.filename, error.strerror)

    found: list[Path] = []
    for place, below, names in os.walk(folder, onerror=refused):
        found += (Path(place, name) for name in names if Path(name).suffix.lower() in READABLE)
        if not recursive:
            below.clear()
    return sorted(file for file in found if file.is_file())


def is_clip(path: Path) -> bool:
    """Return whether a file is taken for a clip, by its suffix."""
    return path.suffix.lower() in CLIPS


def _own_suffix(source: Path) -> str:
    """Return the suffix that an output has where the user names none: the input's, if it is written."""
    suffix = source.suffix.lower()
    if is_clip(source) and suffix not in CLIP_SUFFIXES:
        return next(written for written, container in CLIP_SUFFIXES.items() if container == CLIPS[suffix])
    return source.suffix if suffix in {*FORMATS, *CLIP_SUFFIXES} else ".png"


def _target(source: Path, base: Path, output: str, single: bool, suffix: str | None, scale: int) -> Path:
    chosen = suffix or _own_suffix(source)
    if "{" in output:
        fields = {
            "stem": source.stem,
            "name": source.name,
            "suffix": chosen,
            "folder": str(source.parent.relative_to(base)),
            "scale": str(scale),
        }
        try:
            return Path(output.format(**fields))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UsageError(
                f"Invalid pattern ({output!r}). Supported fields are {', '.join('{' + key + '}' for key in fields)}."
            ) from error
    folder = Path(output)
    if single and folder.suffix and not _is_folder(folder):
        return folder
    return folder / source.parent.relative_to(base) / f"{source.stem}{chosen}"

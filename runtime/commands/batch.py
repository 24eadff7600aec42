"""Many files: decoding, computing and encoding overlap; one bad file does not stop the rest."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import IgnnError, ImageReadError, UsageError
from ..pictures.read import ImageFile, read_file
from ..pictures.write import FORMATS, WriteOptions, format_of, write_file
from ..super_resolver import SuperResolver
from .video import SUFFIXES as VIDEO_SUFFIXES

READABLE = {*FORMATS, ".jpe", ".jfif", ".ppm", ".pgm", ".pnm", ".tga", ".jp2", ".ico", ".avifs"}
"""Suffixes that are taken from folders; a file that is named is tried whatever its suffix."""

AHEAD = 2
"""Files that are decoded, or wait to be encoded, while another is computed: bounds the memory."""


@dataclass(frozen=True)
class Job:
    """One input and its output."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `error` is None if the output is whole. `pixels` counts the output's."""

    job: Job
    error: IgnnError | None
    pixels: int = 0
    skipped: bool = False


def run(
    jobs: Iterable[Job],
    resolver: SuperResolver,
    options: WriteOptions,
    *,
    max_pixels: int | None = None,
    finished: Callable[[Job], None] | None = None,
) -> Generator[Outcome, None, None]:
    """Enlarge files; outcomes come in the jobs' order.

    Args:
        jobs: what to do.
        finished: called in a writing thread as soon as an output is whole.

    Stopping early (closing the iterator, or Ctrl-C) lets the files that are being written become whole first.
    """
    queue = iter(jobs)
    reading: deque[tuple[Job, Future[ImageFile]]] = deque()
    writing: deque[tuple[Job, Future[int]]] = deque()

    def write(job: Job, large: ImageFile) -> int:
        write_file(large, job.target, options)
        if finished is not None:
            finished(job)
        return sum(frame.color.shape[0] * frame.color.shape[1] for frame in large.frames)

    def compute(job: Job, decoded: Future[ImageFile]) -> Future[int]:
        try:
            format_of(job.target)  # before the work, not after it
            large = resolver.upscale_file(decoded.result())
        except IgnnError as error:
            failed: Future[int] = Future()
            failed.set_exception(error)
            return failed
        return writers.submit(write, job, large)

    def outcome() -> Outcome:
        job, result = writing.popleft()
        try:
            return Outcome(job, None, result.result())
        except IgnnError as error:
            return Outcome(job, error)

    with ThreadPoolExecutor(1, "ignn-read") as readers, ThreadPoolExecutor(AHEAD, "ignn-write") as writers:
        try:
            while True:
                while len(reading) < AHEAD and (job := next(queue, None)) is not None:
                    reading.append((job, readers.submit(read_file, job.source, max_pixels=max_pixels)))
                if not reading:
                    break
                job, decoded = reading.popleft()
                writing.append((job, compute(job, decoded)))
                while writing and (writing[0][1].done() or len(writing) > AHEAD):
                    yield outcome()
            while writing:
                yield outcome()
        finally:
            readers.shutdown(wait=False, cancel_futures=True)
            writers.shutdown(wait=True, cancel_futures=True)


def find_jobs(
    names: list[str], output: str, *, recursive: bool = False, suffix: str | None = None, scale: int = 1
) -> list[Job]:
    """The jobs of a command line.

    Args:
        names: files, folders and patterns (`*.jpg`, `**/*.png`).
        output: a file for one input; a folder; or a pattern with {stem}, {name}, {folder}, {suffix} or {scale}.
        recursive: take folders with everything below them, and mirror that below the output.
        suffix: suffix of the outputs; None: that of the input, or .png if that is not written.
        scale: what {scale} stands for.

    Raises:
        ImageReadError: nothing was found.
        UsageError: two inputs have one output, or an output is an input.
    """
    found = [pair for name in names for pair in _find(name, recursive=recursive)]
    if not found:
        raise ImageReadError(
            f"No pictures in {', '.join(names)}. Supported suffixes are {', '.join(sorted(READABLE))}. "
            "For folders below give --recursive."
        )
    single = len(found) == 1 and not Path(names[0]).is_dir()
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


def is_single(names: list[str], jobs: list[Job]) -> bool:
    """Whether one file was named, rather than many, a folder or a pattern."""
    return len(jobs) == 1 and Path(names[0]) == jobs[0].source


def _find(name: str, *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Files of one argument, each with the folder that its place below is mirrored from."""
    path = Path(name)
    if path.is_dir():
        for file in sorted(path.rglob("*") if recursive else path.iterdir()):
            if file.suffix.lower() in READABLE and file.is_file():
                yield file, path
    elif not path.exists() and glob.has_magic(name):
        for match in sorted(glob.glob(name, recursive=True)):
            if Path(match).is_file():
                yield Path(match), Path(match).parent
    else:
        yield path, path.parent


def _target(source: Path, base: Path, output: str, single: bool, suffix: str | None, scale: int) -> Path:
    own = source.suffix if source.suffix.lower() in {*FORMATS, *VIDEO_SUFFIXES} else ".png"
    chosen = suffix or own
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
    if single and folder.suffix and not folder.is_dir():
        return folder
    return folder / source.parent.relative_to(base) / f"{source.stem}{chosen}"

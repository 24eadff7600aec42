"""Many files, read, enlarged and written at the same time. One bad file does not stop the rest."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ImageReadError, UsageError
from ..pictures.picture import Picture
from ..pictures.read import ImageFile, read_file
from ..pictures.write import FORMATS, WriteOptions, format_of, write_file
from ..super_resolver import SuperResolver
from ..tiles.mapping import Mapped, ResultIterator
from .clip_streams import READABLE as CLIPS
from .clip_streams import SUFFIXES as CLIP_SUFFIXES
from .interrupt import wait_or_cancel

READABLE = {*FORMATS, ".jpe", ".jfif", ".ppm", ".pgm", ".pnm", ".tga", ".jp2", ".ico", ".avifs"}
"""Suffixes that are taken from folders; a file that is named is tried whatever its suffix."""

AHEAD = 2
"""How many files may be in writing, and wait for it, while another is computed. It bounds the memory."""


@dataclass(frozen=True)
class Job:
    """One input and its output."""

    source: Path
    target: Path


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


@dataclass(frozen=True)
class _Frame:
    """One picture of a file, or the error that the file could not be read with."""

    job: Job
    content: ImageFile
    index: int = 0
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        return self.index + 1 >= len(self.content.frames)


def run(
    jobs: Iterable[Job],
    resolver: SuperResolver,
    options: WriteOptions,
    *,
    max_pixels: int | None = None,
    finished: Callable[[Job], None] = lambda job: None,
    progress: Callable[[Job, int, int], None] = lambda job, done, total: None,
) -> Generator[Outcome, None, None]:
    """Enlarge files; outcomes come in the jobs' order.

    Files are read in one thread, enlarged in another, and written in others.

    Args:
        jobs: what to do; read in a thread.
        finished: called in a writing thread as soon as an output is whole.
        progress: called in the network's thread after each tile, with how many of the file's tiles are done, and how
            many there are.

    Stopping early (closing the generator, or Ctrl-C) lets the files that are being written become whole first.
    """
    writing: deque[tuple[Job, Future[int]]] = deque()

    def write(job: Job, large: ImageFile) -> int:
        write_file(large, job.target, options)
        finished(job)
        return sum(frame.color.shape[0] * frame.color.shape[1] for frame in large.frames)

    def outcome() -> Outcome:
        job, result = writing.popleft()
        error = result.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Outcome(job, error, 0 if error else result.result())

    def report(frame: _Frame, done: int, total: int) -> None:
        progress(frame.job, frame.index * total + done, len(frame.content.frames) * total)

    writers = ThreadPoolExecutor(AHEAD, "ignn-write")
    results = ResultIterator(resolver.network, _frames(jobs, max_pixels), _decode, _keep, ahead=1, progress=report)
    try:
        for job, large in _files(results.items()):
            writing.append((job, _failed(large) if isinstance(large, Exception) else writers.submit(write, job, large)))
            while writing and (writing[0][1].done() or len(writing) > AHEAD):
                yield outcome()
        while writing:
            yield outcome()
    finally:
        wait_or_cancel(results.close, resolver.network.backend.cancel)
        writers.shutdown(wait=True, cancel_futures=True)


def _frames(jobs: Iterable[Job], max_pixels: int | None) -> Iterator[_Frame]:
    """Read the files, and yield their pictures."""
    for job in jobs:
        try:
            format_of(job.target)  # before the work, not after it
            content = read_file(job.source, max_pixels=max_pixels)
            if not content.frames:
                raise ImageReadError(f"{job.source} holds no picture.")
        except Exception as error:
            yield _Frame(job, ImageFile([], []), error=error)
            continue
        for index in range(len(content.frames)):
            yield _Frame(job, content, index)


def _decode(frame: _Frame) -> Picture:
    if frame.error is not None:
        raise frame.error
    return frame.content.frames[frame.index]


def _keep(picture: Picture, frame: _Frame) -> Picture:
    return picture


def _files(items: Iterator[Mapped]) -> Iterator[tuple[Job, ImageFile | Exception]]:
    """Collect the enlarged frames of each file; yield the file, or the error of the first frame that failed."""
    frames: list[Picture] = []
    error: BaseException | None = None
    for item in items:
        frame, error = item.image, error or item.error
        if error is not None and (frame is None or not isinstance(error, Exception)):
            raise error  # not of a file
        frames.append(item.result)
        if frame.is_last:
            whole = replace(frame.content, frames=frames)
            yield frame.job, error if isinstance(error, Exception) else whole
            frames, error = [], None


def _failed(error: Exception) -> Future[int]:
    result: Future[int] = Future()
    result.set_exception(error)
    return result


def find_jobs(
    names: list[str], output: str, *, recursive: bool = False, suffix: str | None = None, scale: int = 1
) -> list[Job]:
    """Find the jobs of a command line.

    Args:
        names: files, folders and patterns (`*.jpg`, `**/*.png`), as the user typed them.
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
    return len(jobs) == 1 and Path(names[0]) == jobs[0].source


def _find(name: str, *, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the files of one argument, each with the folder that it was found in or below."""
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
    if single and folder.suffix and not folder.is_dir():
        return folder
    return folder / source.parent.relative_to(base) / f"{source.stem}{chosen}"

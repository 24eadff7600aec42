"""Many files, read, enlarged and written at the same time. One bad file does not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ImageReadError
from ..pictures.picture import Picture
from ..pictures.read import ImageFile, read_bytes, read_file
from ..pictures.write import WriteOptions, check_held, format_of, suffix_of_format, write_bytes, write_file
from ..super_resolver import SuperResolver
from ..tiles.mapping import Mapped, ResultIterator
from .interrupt import wait_or_cancel
from .jobs import STANDARD_OUTPUT, Job, Outcome, is_stream, outcomes, read_stream, write_standard_output

AHEAD = 2
"""How many files may be in writing, and wait for it, while another is computed. It bounds the memory."""


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

    def write(job: Job, large: ImageFile) -> int:
        if job.target is STANDARD_OUTPUT:
            suffix = job.suffix or suffix_of_format(large.format)
            write_standard_output(write_bytes(large, suffix, options, name=str(job.target)))
        else:
            write_file(large, job.target, options)
        finished(job)
        return sum(frame.color.shape[0] * frame.color.shape[1] for frame in large.frames)

    def read(job: Job) -> ImageFile:
        if is_stream(job.source):
            content = read_bytes(read_stream(job.source), name=str(job.source), max_pixels=max_pixels)
        else:
            content = read_file(job.source, max_pixels=max_pixels)
        if not content.frames:
            raise ImageReadError(f"{job.source} holds no picture.")
        suffix = job.suffix or suffix_of_format(content.format)
        written = format_of(Path(f"{job.target}{suffix}") if job.target is STANDARD_OUTPUT else job.target)
        check_held(content, written, str(job.target), options, scale=resolver.scale)
        return content

    def report(frame: _Frame, done: int, total: int) -> None:
        progress(frame.job, frame.index * total + done, len(frame.content.frames) * total)

    writers = ThreadPoolExecutor(AHEAD, "ignn-write")
    results = ResultIterator(resolver.network, _frames(jobs, read), _decode, _keep, ahead=1, progress=report)
    try:
        yield from outcomes(
            (
                (job, _failed(large) if isinstance(large, Exception) else writers.submit(write, job, large))
                for job, large in _files(results.items())
            ),
            ahead=AHEAD,
        )
    finally:
        wait_or_cancel(results.close, resolver.network.backend.cancel)
        writers.shutdown(wait=True, cancel_futures=True)


def _frames(jobs: Iterable[Job], read: Callable[[Job], ImageFile]) -> Iterator[_Frame]:
    """Read the files, and yield their pictures."""
    for job in jobs:
        try:
            job.check_format()  # before the work, not after it
            content = read(job)
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

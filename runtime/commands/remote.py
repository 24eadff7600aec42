"""`ignn upscale --server`: many files through a server of `ignn serve`."""

from __future__ import annotations

import argparse
import io
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from ..atomic import atomic_path
from ..errors import UsageError
from ..pictures.write import WriteOptions, format_of
from ..serving.remote import RemoteResolver, read_path
from .batch import Job, Outcome


def open_server(arguments: argparse.Namespace, defaults: argparse.Namespace) -> RemoteResolver:
    """Return the server that `ignn upscale` was told to use.

    Args:
        arguments: those of the command.
        defaults: the same with no option given.

    Raises:
        UsageError: an option that only this machine's network could follow.
        BackendUnavailableError, ServerError: no client here, or no answer from there.
    """
    local = ("max_pixels", "stream", "compare", "tile", "halo", "backend", "provider", "threads", "self_ensemble")
    for name in (*local, "scale", "value_range"):
        if getattr(arguments, name) != getattr(defaults, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for a network on this machine. Leave it out, or leave out --server.")
    return RemoteResolver(arguments.server, **({"model": arguments.model} if arguments.model else {}))


def run(
    jobs: list[Job], resolver: RemoteResolver, options: WriteOptions, *, finished: Callable[[Job], None]
) -> Generator[Outcome, None, None]:
    """Have a server enlarge files; outcomes come in the jobs' order.

    Files are sent as they are; at most `resolver.in_flight` are in memory besides those that wait for an earlier one.

    Args:
        jobs: what to do.
        resolver: the server.
        options: how results are written.
        finished: called in a thread as soon as an output is whole.
    """

    def enlarge(job: Job) -> int:
        format_of(job.target)  # before the work, not after it
        data = resolver.upscale_bytes(
            read_path(job.source),
            format=job.target.suffix[1:].lower(),
            quality=options.quality,
            lossless=options.lossless,
            background=options.background,
        )
        with atomic_path(job.target) as temporary:
            temporary.write_bytes(data)
        finished(job)
        return _count_pixels(data)

    def outcome() -> Outcome:
        job, result = waiting.popleft()
        error = result.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Outcome(job, error, 0 if error else result.result())

    waiting: deque[tuple[Job, Future[int]]] = deque()
    threads = ThreadPoolExecutor(resolver.in_flight, "ignn-send")
    try:
        for job in jobs:
            waiting.append((job, threads.submit(enlarge, job)))
            while waiting and (waiting[0][1].done() or len(waiting) > resolver.in_flight):
                yield outcome()
        while waiting:
            yield outcome()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        resolver.close()  # ends the waits between attempts
        threads.shutdown(wait=True)


def _count_pixels(data: bytes) -> int:
    """Return the pixels of an image file, for the rate that is shown; 0 where Pillow takes it for a bomb."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height * getattr(image, "n_frames", 1)
    except Image.DecompressionBombError:
        return 0

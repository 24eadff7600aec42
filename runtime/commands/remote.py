"""`ignn upscale --server`: many files through a server of `ignn serve`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from ..atomic import atomic_path
from ..errors import UsageError
from ..pictures.write import WriteOptions
from ..serving.remote import RemoteResolver, read_path
from .jobs import STANDARD_OUTPUT, Job, Outcome, is_stream, outcomes, read_stream, write_standard_output


def open_server(arguments: argparse.Namespace, defaults: argparse.Namespace) -> RemoteResolver:
    """Return the server that `ignn upscale` was told to use.

    Args:
        arguments: those of the command.
        defaults: the same with no option given.

    Raises:
        UsageError: an option that only this machine's network could follow.
        BackendUnavailableError, ServerError: no client here, or no answer from there.
    """
    local = ("max_pixels", "stream", "compare", "tile", "halo", "backend", "engine", "device", "devices", "provider")
    for name in (*local, "precision", "threads", "self_ensemble", "scale", "value_range"):
        if getattr(arguments, name) != getattr(defaults, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for a network on this machine. Leave it out, or leave out --server.")
    return RemoteResolver(arguments.server, model=arguments.model)


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
        job.check_format()  # before the work, not after it
        suffix = job.suffix if job.target is STANDARD_OUTPUT else job.target.suffix.lower()
        data = resolver.upscale_bytes(
            read_stream(job.source) if is_stream(job.source) else read_path(job.source),
            format=suffix[1:] if suffix else None,
            quality=options.quality,
            lossless=options.lossless,
            background=options.background,
        )
        if job.target is STANDARD_OUTPUT:
            write_standard_output(data)
        else:
            with atomic_path(job.target) as temporary:
                temporary.write_bytes(data)
        finished(job)
        return _count_pixels(data)

    threads = ThreadPoolExecutor(resolver.in_flight, "ignn-send")
    try:
        yield from outcomes(((job, threads.submit(enlarge, job)) for job in jobs), ahead=resolver.in_flight)
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

"""`ignn upscale`: enlarge files and folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from ..atomic import remove_leftovers
from ..backends import PRECISIONS
from ..backends.many import Devices
from ..backends.opening import BACKENDS
from ..errors import IgnnError, UsageError, explain
from ..pictures.read import read_file
from ..pictures.readers import EXTRA_SUFFIXES
from ..pictures.write import FORMATS, WriteOptions
from ..super_resolver import SuperResolver
from . import batch, video
from .find import find_jobs, folder_of, is_clip, is_single
from .jobs import STANDARD_INPUT, STANDARD_OUTPUT, Job, Outcome, take_shard
from .journal import Journal, Work
from .words import said_once

Finished = Callable[[Job], None]
"""Called when an output is whole."""

Progress = Callable[[Job, int, int], None]
"""Called with how many of a file's tiles or frames are done, and how many there are."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="ignn upscale",
        description="Enlarge pictures with a super-resolution network.",
        epilog="A folder of outputs gets a journal (.ignn-journal.jsonl), which --resume goes by.",
    )
    files = result.add_argument_group("files")
    files.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="picture, clip, folder of pictures, pattern such as '*.jpg', or - (standard input)",
    )
    files.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="file for one picture; folder; pattern with {stem}, {name}, {folder}, {suffix}, {scale}; or -",
    )
    files.add_argument("-r", "--recursive", action="store_true", help="folders with all below them")
    files.add_argument("--shard", metavar="I/N", help="every N-th file, from the I-th on (0 to N - 1)")
    files.add_argument("--server", metavar="URL", help="have a server do it: grpc://host:port of `ignn serve`")
    files.add_argument("--resume", action="store_true", help="skip what an earlier run has finished")
    add_write_arguments(files)
    files.add_argument(
        "--stream", action="store_true", help="of one picture: from and to disk, in little memory, to .png or .tif"
    )
    files.add_argument("--compare", type=Path, metavar="SHEET", help="of one picture: also show it beside bicubic")
    add_network_arguments(result)
    return result


def add_write_arguments(files: argparse._ArgumentGroup) -> None:
    """Add the arguments that say how pictures are read and written."""
    files.add_argument(
        "--format", choices=sorted(suffix[1:] for suffix in FORMATS), help="output format (default: own)"
    )
    files.add_argument("--quality", type=int, help="1 to 100, higher is better, for JPEG, WebP, AVIF and clips")
    files.add_argument("--lossless", action="store_true", help="lossless WebP")
    files.add_argument("--background", metavar="COLOR", help="replace transparency by a color, e.g. for JPEG")
    files.add_argument("--max-pixels", type=int, metavar="N", help="largest input, in pixels (default: Pillow's limit)")


def add_network_arguments(result: argparse.ArgumentParser) -> None:
    """Add the arguments that make a `SuperResolver`."""
    network = result.add_argument_group("network")
    network.add_argument("--model", help=".onnx file, or name of a bundled model (`ignn models`); default: edsr-s-x2")
    network.add_argument(
        "--tile",
        default="auto",
        help="largest tile side in pixels, `none`, or `auto` (by free memory, the default); the result is the same",
    )
    network.add_argument("--halo", type=int, help="context around a tile; less than the model's own is approximate")
    network.add_argument(
        "--backend",
        default="ort",
        choices=BACKENDS,
        help="what runs it (default %(default)s, ONNX Runtime)",
    )
    network.add_argument("--precision", choices=PRECISIONS, help="what OpenVINO computes in (default fp32)")
    network.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="of ONNX Runtime: cpu, cuda, tensorrt, tensorrt-rtx, openvino, webgpu",
    )
    network.add_argument("--engine", metavar="E", help="engine of `ignn build` or trtexec; runs in TensorRT")
    network.add_argument(
        "--device", metavar="N", help="index of the NVIDIA GPU (default 0); of OpenVINO CPU (default), GPU or GPU.1"
    )
    network.add_argument(
        "--devices", metavar="LIST", help="several GPUs at a time: `all`, or indices such as 0,1 (instead of --device)"
    )
    network.add_argument("--threads", type=int, help="CPU threads (default: all cores that the process may use)")
    network.add_argument(
        "--self-ensemble", action="store_true", help="mean of 8 flips and turns: better, 8 times slower"
    )
    network.add_argument("--scale", type=int, help="scale of a model that `ignn export` did not make")
    network.add_argument("--value-range", choices=["0..255", "0..1"], help="value range of such a model")


def resolver_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `SuperResolver` that a command line names."""
    return {
        "model": arguments.model,
        "engine": arguments.engine,
        "device": _device(arguments.device),
        "devices": _devices(arguments.devices),
        "backend": arguments.backend,
        "precision": arguments.precision,
        "providers": arguments.provider,
        "tile": _tile(arguments.tile),
        "halo": arguments.halo,
        "self_ensemble": arguments.self_ensemble,
        "threads": arguments.threads,
        "scale": arguments.scale,
        "value_range": arguments.value_range,
        "max_pixels": arguments.max_pixels,
    }


def make_resolver(arguments: argparse.Namespace) -> SuperResolver:
    """Open the model that the arguments name, with the options that they give."""
    return SuperResolver(**resolver_arguments(arguments))


def main(argv: list[str]) -> int:
    """Run `ignn upscale` with these arguments; returns the exit code."""
    arguments = parser().parse_args(argv)
    options = WriteOptions(arguments.quality, arguments.lossless, arguments.background)
    # Wrong names and options before slow work.
    take_shard(find_jobs(arguments.inputs, arguments.output, recursive=arguments.recursive), arguments.shard or "0/1")
    if arguments.server is not None:
        return _run_on_server(arguments, options)
    with make_resolver(arguments) as resolver:
        return _run_here(arguments, options, resolver)


def _run_here(arguments: argparse.Namespace, options: WriteOptions, resolver: SuperResolver) -> int:
    jobs, single = _jobs(arguments, resolver.scale)
    _check_kinds(jobs, arguments, single=single)

    def enlarge(todo: list[Job], finished: Finished, progress: Progress) -> Generator[Outcome, None, None]:
        if arguments.stream:
            from . import stream

            yield from stream.run(todo[0], resolver, options, max_pixels=arguments.max_pixels, progress=progress)
            return
        pictures = [job for job in todo if not is_clip(job.source)]
        yield from batch.run(
            pictures, resolver, options, max_pixels=arguments.max_pixels, finished=finished, progress=progress
        )
        clips = [job for job in todo if is_clip(job.source)]
        yield from video.run(
            clips,
            resolver,
            quality=arguments.quality,
            resume=arguments.resume,
            finished=finished,
            progress=progress,
        )

    failures = _run(jobs, f"{resolver.settings} {options}", arguments, enlarge, single=single)
    if not failures and arguments.compare is not None:
        _write_comparison(jobs[0], resolver.metadata.name, arguments)
    return 1 if failures else 0


def _check_kinds(jobs: list[Job], arguments: argparse.Namespace, *, single: bool) -> None:
    """Refuse options that are not for what the inputs are."""
    if arguments.compare is not None and not single:
        raise UsageError("--compare takes one picture. Compare the results of several with `ignn compare`.")
    if arguments.stream and (not single or arguments.compare is not None):
        raise UsageError("--stream takes one picture, and no --compare.")
    if any(job.source is STANDARD_INPUT or job.target is STANDARD_OUTPUT for job in jobs):
        for name in ("compare", "stream", "shard", "resume"):
            if getattr(arguments, name):
                raise UsageError(f"--{name} is for files, and - is none. Leave out one of the two.")
        if jobs[0].target is STANDARD_OUTPUT and sys.stdout.isatty():
            raise UsageError("-o - writes a picture to standard output, which is a terminal. Send it on: | or >.")
    clip = next((job.source for job in jobs if is_clip(job.source)), None)
    if clip is not None:
        for name in ("compare", "stream", "format", "lossless", "background"):
            if getattr(arguments, name):
                raise UsageError(f"--{name} is for pictures, and {clip} is a clip. Leave out one of the two.")


def _jobs(arguments: argparse.Namespace, scale: int) -> tuple[list[Job], bool]:
    """Return the jobs of this run, and whether it is for one file that was named."""
    jobs = find_jobs(
        arguments.inputs,
        arguments.output,
        recursive=arguments.recursive,
        suffix=f".{arguments.format}" if arguments.format else None,
        scale=scale,
    )
    if arguments.format is None and Path(arguments.output).suffix.lower() not in FORMATS:
        _say_what_becomes_png(jobs)
    if arguments.shard is not None:
        return take_shard(jobs, arguments.shard), False
    return jobs, is_single(arguments.inputs, jobs)


def _say_what_becomes_png(jobs: list[Job]) -> None:
    """Say once that files of kinds that are not written become PNG, where the user named no format."""
    for what, suffixes in (("BMP with transparency", {".bmp"}), ("HEIC, JPEG XL or raw", {*EXTRA_SUFFIXES})):
        count = sum(job.source.suffix.lower() in suffixes and job.target.suffix == ".png" for job in jobs)
        if count:
            sys.stderr.write(f"ignn upscale: {count} {what}: written as PNG\n")


def _run_on_server(arguments: argparse.Namespace, options: WriteOptions) -> int:
    from . import remote

    with remote.open_server(arguments, parser().parse_args(["IN", "-o", "OUT"])) as resolver:
        jobs, single = _jobs(arguments, resolver.scale)
        if any(is_clip(job.source) for job in jobs):
            raise UsageError("A clip is enlarged on this machine. Leave out --server.")
        _check_kinds(jobs, arguments, single=single)
        failures = _run(
            jobs,
            f"{resolver.settings} {options}",
            arguments,
            lambda todo, finished, _: remote.run(todo, resolver, options, finished=finished),
            single=single,
        )
    return 1 if failures else 0


def _run(
    jobs: list[Job],
    settings: str,
    arguments: argparse.Namespace,
    enlarge: Callable[[list[Job], Finished, Progress], Generator[Outcome, None, None]],
    *,
    single: bool,
) -> int:
    """Enlarge the files with a progress bar, and say which failed; returns how many did.

    Args:
        jobs: the files.
        settings: everything but the input that decides a result.
        arguments: those of the command.
        enlarge: takes jobs, what to call after each, and after each tile or frame; gives their outcomes in order.
        single: whether one file was named.
    """
    from .progress import file_progress

    journal = None if single else Journal(folder_of(arguments.output), resume=arguments.resume, shard=arguments.shard)
    works = {job: Work(job.source, job.target, settings) for job in jobs}
    todo = jobs
    if arguments.resume:
        for job in jobs:
            remove_leftovers(job.target)
        if journal is not None:
            todo = [job for job in jobs if not journal.has(works[job])]
        if len(todo) < len(jobs):
            sys.stderr.write(f"ignn upscale: {len(jobs) - len(todo)} of {len(jobs)} files are done already\n")

    def finished(job: Job) -> None:
        if journal is not None:
            journal.add(works[job])

    failures = []
    part = "frame" if any(is_clip(job.source) for job in jobs) else "tile"
    with (
        said_once(),
        file_progress(len(jobs), done=len(jobs) - len(todo), part=part if single else None) as shown,
        closing(enlarge(todo, finished, shown.part)) as outcomes,
    ):
        for outcome in outcomes:
            shown.file(outcome.job, outcome.pixels)
            if outcome.error is not None:
                failures.append(outcome)
    if single and failures and isinstance(failures[0].error, (IgnnError, BrokenPipeError)):
        raise failures[0].error
    for failure in failures:
        assert failure.error is not None
        reason, name = explain(failure.error), str(failure.job.source)
        sys.stderr.write(f"ignn upscale: error: {reason if reason.startswith(name) else f'{name}: {reason}'}\n")
    if failures:
        sys.stderr.write(f"ignn upscale: {len(failures)} of {len(jobs)} files failed\n")
    return len(failures)


def _write_comparison(job: Job, label: str, arguments: argparse.Namespace) -> None:
    from . import compare

    ours = compare.entry(label, read_file(job.target, max_pixels=sys.maxsize).frames[0])
    small = read_file(job.source, max_pixels=arguments.max_pixels).frames[0]
    theirs = compare.bicubic("bicubic", small, (ours.rgb.shape[1], ours.rgb.shape[0]))
    compare.write_sheet(compare.sheet([theirs, ours], psnr=False), arguments.compare)


def _tile(text: str) -> int | Literal["auto"] | None:
    if text == "none":
        return None
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit() and int(text) >= 1:
        return int(text)
    raise UsageError(f"Invalid --tile ({text!r}). Supported values are auto, none and whole numbers from 1.")


def _device(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _devices(text: str | None) -> Devices | None:
    if text is None or text == "all":
        return text  # type: ignore[return-value] # the one text that it takes
    if all(part.isascii() and part.isdigit() for part in text.split(",")):
        return [int(part) for part in text.split(",")]
    raise UsageError(f"Invalid --devices ({text!r}). Supported values are all, and indices of GPUs such as 0,1.")

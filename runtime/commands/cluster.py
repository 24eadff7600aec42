"""`ignn batch`: enlarge a folder or a bucket on a cluster, by Ray Data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from functools import partial
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

from tqdm import tqdm

from ..backends.opening import find_model_file
from ..errors import UsageError
from ..pictures.write import WriteOptions
from ..serving import cluster
from ..serving.cluster import Actors, Result, Task
from ..serving.metrics import Metrics, served_metrics
from ..serving.storage import MARKS, Entry, Folder, key_of, mark_of
from .find import READABLE, picture_suffix
from .upscale import add_network_arguments, add_write_arguments, resolver_arguments

FAILURES = "ignn-failures.jsonl"
"""The list of what failed, among the outputs: a line of JSON for each file. Absent where nothing did."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    result = argparse.ArgumentParser(
        prog="ignn batch",
        description="Enlarge a folder or a bucket on a cluster, by Ray Data. What is done already is passed over.",
        epilog="This package must be installed on every node, and --model, if it is a file, lie there as well.",
    )
    result.add_argument("source", metavar="SRC", help="folder, s3://bucket/folder, gs://bucket/folder; with all below")
    result.add_argument("target", metavar="DST", help="folder or address of the outputs")
    spread = result.add_argument_group("cluster")
    spread.add_argument(
        "--address", default="local", help="`local` (default: this machine), ray://host:port, host:port, or `auto`"
    )
    spread.add_argument("--actors", type=int, metavar="N", help="networks at a time (default: all that fit)")
    spread.add_argument("--gpus-per-actor", type=float, default=0, metavar="G", help="e.g. 1 or 0.5 (default 0: CPUs)")
    spread.add_argument("--metrics-port", type=int, metavar="PORT", help="serve metrics for Prometheus on this machine")
    add_write_arguments(result.add_argument_group("files"))
    add_network_arguments(result)
    result.set_defaults(threads=1)
    return result


def main(argv: list[str]) -> int:
    """Enlarge what is not done yet, and say what failed; returns the exit code."""
    arguments = parser().parse_args(argv)
    options = WriteOptions(arguments.quality, arguments.lossless, arguments.background)
    actors = Actors(arguments.actors, arguments.threads, arguments.gpus_per_actor)
    resolver = _resolver(arguments)
    source, target = Folder(arguments.source), Folder(arguments.target)
    _check_folders(source, target)
    tasks, found = _plan(source, target, arguments.format, _settings(arguments, options))
    if len(tasks) < found:
        sys.stderr.write(f"ignn batch: {found - len(tasks)} of {found} files are done already\n")
    make = {
        "source": source,
        "target": target,
        "options": options,
        "resolver": resolver,
        "max_pixels": arguments.max_pixels,
    }
    with served_metrics(arguments.metrics_port, "batch") as metrics:
        failures = _run(tasks, make, actors, arguments.address, metrics) if tasks else []
    return _report(target, failures, found)


def _resolver(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.device is not None or arguments.devices is not None:
        raise UsageError("Ray chooses each actor's GPU. Leave out --device and --devices.")
    resolver = resolver_arguments(arguments)
    if arguments.gpus_per_actor and arguments.backend == "ort" and resolver["providers"] is None:
        resolver["providers"] = ["cuda"]  # where a GPU is asked for, no silent CPU
    return resolver


def _settings(arguments: argparse.Namespace, options: WriteOptions) -> str:
    """Return everything but the source that decides an output; machines of a cluster may differ in what runs it."""
    fields = resolver_arguments(arguments)
    for name in ("tile", "threads", "max_pixels", "device", "devices"):
        del fields[name]
    for name in ("model", "engine"):
        if name == "model" or fields[name] is not None:
            fields[name] = find_model_file(fields[name])[2]
    return json.dumps([metadata.version("ignn"), fields, str(options)], sort_keys=True)


def _check_folders(source: Folder, target: Folder) -> None:
    if not source.is_folder():
        raise UsageError(f"There is no folder {source.address}. `ignn batch` takes a folder; of files: ignn upscale.")
    if target.lies_in(source):
        raise UsageError(f"{target.address} lies in {source.address}: outputs would be inputs. Choose another DST.")


def _plan(source: Folder, target: Folder, suffix: str | None, settings: str) -> tuple[list[Task], int]:
    """Return what is to be done, and how many pictures there are."""
    entries = [entry for entry in source.list() if PurePosixPath(entry.name).suffix.lower() in READABLE]
    if not entries:
        raise UsageError(
            f"There are no pictures in {source.address}. Supported suffixes are {', '.join(sorted(READABLE))}."
        )
    names = _targets(source, entries, suffix)
    there = {entry.name for entry in target.list()}
    marks: dict[str, list[str]] = {}
    for name in there:
        if name.startswith(f"{MARKS}/"):
            marks.setdefault(name.rpartition("-")[0], []).append(name)
    tasks = []
    for entry in entries:
        name = names[entry.name]
        mark = mark_of(name, key_of(entry, settings))
        if not {mark, name} <= there:
            tasks.append(Task(entry.name, name, mark, sorted(marks.get(mark.rpartition("-")[0], []))))
    return tasks, len(entries)


def _targets(source: Folder, entries: Iterable[Entry], suffix: str | None) -> dict[str, str]:
    """Return the outputs' names by the inputs' names."""
    result: dict[str, str] = {}
    taken: dict[str, str] = {}
    for entry in entries:
        name = PurePosixPath(entry.name)
        chosen = f".{suffix}" if suffix else picture_suffix(name.suffix, partial(source.open, entry.name))
        target = name.with_suffix(chosen).as_posix()
        if target in taken:
            raise UsageError(f"{taken[target]} and {entry.name} would both become {target}. Rename one of them.")
        taken[target], result[entry.name] = entry.name, target
    return result


def _run(
    tasks: list[Task], make: dict[str, Any], actors: Actors, address: str, metrics: Metrics | None
) -> list[Result]:
    failures = []
    with tqdm(total=len(tasks), unit="file", disable=None) as bar:

        def started(number: int) -> None:
            bar.set_postfix_str(f"{number} actors", refresh=False)

        for result in cluster.run(tasks, make, actors, address=address, started=started):
            bar.update()
            if result.error is not None:
                failures.append(result)
            if metrics is not None:
                _count(metrics, result)
    return failures


def _count(metrics: Metrics, result: Result) -> None:
    if result.error is not None:
        metrics.failed(result.kind)
    elif result.skipped:
        metrics.met_again()
    else:
        metrics.enlarged(result.pixels, result.watch)


def _report(target: Folder, failures: list[Result], found: int) -> int:
    if not failures:
        target.delete([FAILURES])
        return 0
    failures.sort(key=lambda result: result.source)
    lines = [{"source": each.source, "kind": each.kind, "error": each.error} for each in failures]
    target.write(FAILURES, "".join(json.dumps(line) + "\n" for line in lines).encode())
    for each in failures[:20]:
        sys.stderr.write(f"ignn batch: error: {each.source}: {each.error}\n")
    sys.stderr.write(f"ignn batch: {len(failures)} of {found} files failed; they stand in {FAILURES} in DST\n")
    return 1

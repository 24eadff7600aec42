"""Enlarge a folder on a cluster, by Ray Data: `ignn batch`.

Each actor holds one network, reads a file, enlarges it and writes it. What lies in the output's folder says what is
done, so that nothing is lost with a process or a machine, and an actor that is started again passes over what its
predecessor wrote.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..clone import install_command
from ..errors import BackendUnavailableError, ClusterError, explain
from ..pictures.read import read_bytes
from ..pictures.write import WriteOptions, check_held, format_of, write_bytes
from ..super_resolver import SuperResolver
from .metrics import Stopwatch
from .storage import Folder

CPUS_PER_ACTOR = 0.5
"""What an actor takes of the CPUs that Ray counts, for each thread: where actors hold all, nothing else of Ray's own
can start, and the job waits for ever (ray-project/ray #44687)."""

MOST_FILES_A_TASK = 16
"""Ray's overhead is by the task, and a task that a killed actor held begins anew."""


@dataclass(frozen=True)
class Task:
    """One file to enlarge.

    Attributes:
        source, target: names below the two folders.
        mark: name of the empty file that says that the target is whole.
        stale: names of marks that the target had before.
    """

    source: str
    target: str
    mark: str
    stale: list[str]


@dataclass(frozen=True)
class Result:
    """What became of a file.

    Attributes:
        source: its name.
        error: None if the output is whole.
        kind: class of the error, or an empty string.
        pixels: of the output, of all its frames.
        skipped: whether it was whole already, by a task that was begun anew.
        watch: what it took.
    """

    source: str
    error: str | None = None
    kind: str = ""
    pixels: int = 0
    skipped: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(frozen=True)
class Actors:
    """How many networks, and what each may use.

    Attributes:
        count: None: as many as there are CPUs for, or GPUs.
        threads: CPU threads of each.
        gpus: GPUs of each, which may be a fraction; 0: CPUs.
    """

    count: int | None = None
    threads: int = 1
    gpus: float = 0


class Enlarger:
    """What an actor does: one network, file after file.

    Args:
        source, target: the folders.
        options: how to write.
        resolver: arguments of `SuperResolver`.
        max_pixels: largest input; None: Pillow's limit.
    """

    def __init__(
        self, source: Folder, target: Folder, options: WriteOptions, resolver: dict[str, Any], max_pixels: int | None
    ) -> None:
        self._source, self._target, self._options, self._max_pixels = source, target, options, max_pixels
        self._resolver = SuperResolver(**resolver)
        network = self._resolver.network
        if network.backend.on_host:
            # The other actors of this machine take as much at the same time.
            network.host_share = min(1, (resolver["threads"] or 1) / (os.cpu_count() or 1))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Enlarge one file; the row is a `Task`, and what is returned holds a `Result`, whose fields Arrow cannot."""
        return {"result": pickle.dumps(self._enlarge(Task(**row)))}

    def _enlarge(self, task: Task) -> Result:
        watch = Stopwatch()
        try:
            if self._target.has(task.mark) and self._target.has(task.target):
                return Result(task.source, skipped=True)
            with watch.stage("read"):
                data = self._source.read(task.source)
            with watch.stage("decode"):
                small = read_bytes(data, max_pixels=self._max_pixels)
            written = format_of(Path(task.target))
            check_held(small, written, "the result", self._options, scale=self._resolver.scale)
            with watch.stage("network"):
                large = self._resolver.upscale_file(small, tile_done=watch.tile_done)
            with watch.stage("encode"):
                result = write_bytes(large, PurePosixPath(task.target).suffix, self._options)
            with watch.stage("write"):
                self._target.delete(task.stale)
                self._target.write(task.target, result)
                self._target.write(task.mark, b"")
        except Exception as error:  # one file's failure
            return Result(task.source, explain(error), type(error).__name__)
        pixels = sum(frame.color.shape[0] * frame.color.shape[1] for frame in large.frames)
        return Result(task.source, pixels=pixels, watch=watch)


class Job:
    """The pipeline of Ray Data, in an actor of its own on the cluster: through Ray's client (`ray://`) it cannot run.

    Args:
        tasks: what to do.
        make_enlarger: arguments of `Enlarger`.
        actors: what each actor may use; `count` is how many.
    """

    def __init__(self, tasks: list[Task], make_enlarger: dict[str, Any], actors: Actors) -> None:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        assert actors.count is not None
        a_task = max(1, min(MOST_FILES_A_TASK, len(tasks) // (16 * actors.count)))
        data = ray.data.from_items([asdict(task) for task in tasks], override_num_blocks=-(-len(tasks) // a_task))
        enlarged = data.map(
            Enlarger,
            fn_constructor_kwargs=make_enlarger,
            compute=ray.data.ActorPoolStrategy(size=actors.count),
            num_cpus=CPUS_PER_ACTOR * (1 if actors.gpus else actors.threads),
            num_gpus=actors.gpus or None,
        )
        self._rows = iter(enlarged.iter_rows())

    def next(self) -> Result | None:
        """Wait for the next picture; None where there is no more."""
        row = next(self._rows, None)
        return None if row is None else pickle.loads(row["result"])


def run(
    tasks: list[Task],
    make_enlarger: dict[str, Any],
    actors: Actors,
    *,
    address: str,
    started: Callable[[int], None] = lambda count: None,
) -> Iterator[Result]:
    """Have a cluster enlarge files; results come as they are ready.

    Args:
        tasks: what to do.
        make_enlarger: arguments of `Enlarger`.
        actors: how many, and what each may use.
        address: `local`, a cluster on this machine for this run; `ray://host:port`; or what else `ray.init` takes.
        started: called with the number of actors once Ray is there.

    Raises:
        BackendUnavailableError: Ray is not installed.
        ClusterError: no such cluster, too few CPUs or GPUs there, or the network cannot be opened there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an image tool sends nothing
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors come as exceptions
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailableError(
            f"Ray is not installed ({error}). Install it with: {install_command('batch')}"
        ) from error
    _check_reachable(address)
    local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise _no_cluster(address, error) from error
    try:
        actors = replace(actors, count=count_actors(ray.cluster_resources(), actors))
        started(actors.count or 0)
        left = {task.source: task for task in tasks}
        while left:
            before = len(left)
            try:
                job = ray.remote(num_cpus=0)(Job).remote(list(left.values()), make_enlarger, actors)
                while (result := ray.get(job.next.remote())) is not None:
                    del left[result.source]
                    yield result
            except ray.exceptions.RayActorError:  # the node of the job itself is lost: what is left begins anew
                if len(left) == before:
                    raise
    except ray.exceptions.RayError as error:
        raise ClusterError(f"The cluster at {address} failed: {_cause(error)}") from error
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise where nothing listens: Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: BaseException) -> ClusterError:
    return ClusterError(
        f"There is no Ray cluster at {address} that takes this machine ({_first_line(error)}). Start one: ray start "
        "--head. It has a token: RAY_AUTH_MODE=token ignn batch ..., with the same ~/.ray/auth_token here."
    )


def count_actors(resources: dict[str, float], actors: Actors) -> int:
    """Return how many actors to start."""
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    room = int(gpus / actors.gpus) if actors.gpus else int(cpus / actors.threads)
    if room < 1 or (actors.count or 0) > room:
        wanted = f"{actors.count or 1} actors of {actors.threads} CPUs and {actors.gpus:g} GPUs"
        raise ClusterError(
            f"The cluster has {cpus:g} CPUs and {gpus:g} GPUs, too few for {wanted}. "
            "Give fewer --actors, --threads or --gpus-per-actor."
        )
    return actors.count or room


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _cause(error: BaseException) -> str:
    """Return what an actor said, without Ray's account of where it was said."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)

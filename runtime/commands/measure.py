"""Measuring: every alternative lives in a process of its own and runs on request.

So alternatives can take turns within one run, none sees another's threads or memory, and each one's peak memory is its
process's. Times are wall-clock and CPU time (of all threads, and of finished children); the ratio of two alternatives
is that of their medians, beside the spread of the ratio from round to round, which says how noisy the run was.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from ..backends.memory import peak_memory
from ..errors import IgnnError

Factory = Callable[..., Callable[[], Any]]
"""Called once in the process; what it returns is called once a sample. A dictionary that it returns is seconds by
stage; anything else is the output of `Worker.output`."""

MAX_ROUNDS = 30


class NotRunError(Exception):
    """An alternative cannot run here; the message says why. Such an alternative is listed, not left out."""


class RefusedError(RuntimeError):
    """An alternative ended in an error of ours, whose message this is; or its process ended by itself."""


class Worker:
    """One alternative in a fresh process.

    Args:
        factory: a function that a fresh process can import by name.
        arguments: its arguments.

    Raises:
        NotRunError: a package that it needs is not installed.
        RefusedError: it raised an `IgnnError`, or its process ended.
        RuntimeError: it failed otherwise; the message is its traceback.
    """

    def __init__(self, factory: Factory, arguments: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self) -> dict[str, Any]:
        """Run once; return `wall_s`, `cpu_s` and `stages` (seconds by name)."""
        return self._ask("run")

    def output(self) -> Any:  # noqa: ANN401 (whatever the factory's function returns)
        """Return what the latest run returned."""
        return self._ask("output")

    def peak_bytes(self) -> int:
        """Return the largest resident memory of the process so far, or of its largest child."""
        return self._ask("peak_bytes")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, request: str) -> Any:  # noqa: ANN401
        self._connection.send(request)
        return self._receive()

    def _receive(self) -> Any:  # noqa: ANN401
        try:
            kind, value = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RefusedError(
                f"The measured process ended by itself (exit code {self._process.exitcode}; -9: memory ran out)."
            ) from None
        if kind == "answer":
            return value
        self.close()
        if kind == "missing":
            raise NotRunError(f"{value} is not installed")
        if kind == "refused":
            raise RefusedError(value)
        raise RuntimeError(f"The measured process failed:\n{value}")


def _serve(connection: Connection, factory: Factory, arguments: dict[str, Any]) -> None:
    """Run in the process: answer requests until the other end closes."""
    output = None
    try:
        run = factory(**arguments)
        connection.send(("answer", None))
        while True:
            request = connection.recv()
            if request == "run":
                output = None  # or its memory would count twice
                cpu, wall = _cpu_s(), time.perf_counter()
                output = run()
                sample = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}
                connection.send(("answer", sample | {"stages": output if isinstance(output, dict) else {}}))
            else:
                connection.send(("answer", output if request == "output" else peak_bytes()))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return
    except IgnnError as error:
        connection.send(("refused", str(error)))
    except ModuleNotFoundError as error:
        connection.send(("missing", error.name))
    except BaseException:
        connection.send(("failure", traceback.format_exc(limit=-8)))


def _cpu_s() -> float:
    return time.process_time() + _children()[0]


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far, or of its largest finished child."""
    return max(peak_memory(), _children()[1])


def _children() -> tuple[float, int]:
    """Return the CPU seconds of finished children, and the largest one's resident memory; 0 on Windows."""
    if sys.platform == "win32":
        return 0.0, 0
    import resource  # not on Windows

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Timings:
    """Samples of alternatives that took turns: the n-th sample of each is of the same round."""

    def __init__(self, names: list[str]) -> None:
        self.samples: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.warm_up_s: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return, by alternative, what the JSON holds of it."""
        return {name: self._summary(name) for name in self.samples}

    def _summary(self, name: str) -> dict[str, Any]:
        samples = self.samples[name]
        stages = samples[0]["stages"]
        return {
            "rounds": len(samples),
            "warm_up_s": self.warm_up_s.get(name),
            "wall_s": distribution([sample["wall_s"] for sample in samples]),
            "cpu_s": distribution([sample["cpu_s"] for sample in samples]),
            "stages_s": {stage: distribution([sample["stages"][stage] for sample in samples]) for stage in stages},
            "peak_bytes": self.peaks[name],
        }

    def ratio(self, name: str, other: str) -> dict[str, float]:
        """Return `name` over `other`: medians of wall and CPU time, lowest and highest round, peak memory."""

        def values(which: str, kind: str) -> list[float]:
            return [sample[kind] for sample in self.samples[which]]

        rounds = [a / b for a, b in zip(values(name, "wall_s"), values(other, "wall_s"), strict=True)]
        return {
            "wall": statistics.median(values(name, "wall_s")) / statistics.median(values(other, "wall_s")),
            "cpu": statistics.median(values(name, "cpu_s")) / max(statistics.median(values(other, "cpu_s")), 1e-9),
            "wall_lowest_round": min(rounds),
            "wall_highest_round": max(rounds),
            "peak_memory": self.peaks[name] / self.peaks[other],
        }


def alternate(
    workers: Mapping[str, Worker],
    *,
    budget_s: float,
    min_rounds: int = 3,
    max_rounds: int = MAX_ROUNDS,
    refused: dict[str, str] | None = None,
) -> Timings:
    """Run alternatives in turns, once unmeasured and then round by round, in alternating order.

    Args:
        workers: the alternatives.
        budget_s: begin no round after this many seconds ...
        min_rounds: ... but measure at least so many; 0 with `max_rounds` 1 measures the very first run.
        max_rounds: and at most so many.
        refused: takes the reason of each alternative that fails; the others go on. None: the error is raised.
    """
    timings = Timings(list(workers))

    def take(name: str, samples: list[dict[str, Any]]) -> None:
        try:
            samples.append(workers[name].run())
        except RuntimeError as error:
            if refused is None:
                raise
            refused[name] = str(error)
            del timings.samples[name]

    if min_rounds > 0:
        for name in list(timings.samples):
            first: list[dict[str, Any]] = []
            take(name, first)
            if first:
                timings.warm_up_s[name] = first[0]["wall_s"]
    start, rounds = time.monotonic(), 0
    while rounds < max_rounds and (rounds < max(min_rounds, 1) or time.monotonic() - start < budget_s):
        names = list(timings.samples)
        for name in names if rounds % 2 == 0 else reversed(names):
            take(name, timings.samples[name])
        rounds += 1
    timings.peaks = {name: workers[name].peak_bytes() for name in timings.samples}
    return timings


def compare(
    alternatives: Mapping[str, tuple[Factory, dict[str, Any]]],
    *,
    against: str | None = None,
    outputs: Callable[[Mapping[str, Worker]], dict[str, float]] | None = None,
    budget_s: float,
    min_rounds: int = 3,
    max_rounds: int = MAX_ROUNDS,
) -> dict[str, Any]:
    """Measure alternatives in turns; return a row's measurements.

    Args:
        alternatives: by name, factory and its arguments.
        against: what the others are compared with.
        outputs: further numbers, from the workers after their last run.
        budget_s, min_rounds, max_rounds: as `alternate` takes them.
    """
    not_run: dict[str, str] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, (factory, arguments) in alternatives.items():
            try:
                workers[name] = stack.enter_context(Worker(factory, arguments))
            except NotRunError as error:
                not_run[name] = str(error)
        timings = alternate(workers, budget_s=budget_s, min_rounds=min_rounds, max_rounds=max_rounds)
        derived = outputs(workers) if outputs else {}
    ratios = {name: timings.ratio(name, against) for name in workers if against in workers and name != against}
    return {"alternatives": timings.summary(), "against": against, "ratios": ratios, "derived": derived} | (
        {"not_run": not_run} if not_run else {}
    )


def distribution(values: list[float]) -> dict[str, float]:
    """Return median, 90th and 99th percentile (nearest rank), least and largest value."""
    ordered = sorted(values)

    def rank(percent: int) -> float:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    return {
        "p50": statistics.median(ordered),
        "p90": rank(90),
        "p99": rank(99),
        "min": ordered[0],
        "max": ordered[-1],
    }

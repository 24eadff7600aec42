"""Measuring: turns, times, memory, and what is said when an alternative cannot run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from runtime.commands.measure import NotRunError, RefusedError, Worker, alternate, compare, distribution
from runtime.errors import BackendUnavailableError


def sleeper(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def spinner(seconds: float) -> Callable[[], float]:
    def run() -> float:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return seconds

    return run


def holder(megabytes: int) -> Callable[[], np.ndarray]:
    return lambda: np.ones(megabytes * 10**6, np.uint8)[:3]


def absent() -> Callable[[], None]:
    import no_such_package  # noqa: F401

    return lambda: None


def failing() -> Callable[[], None]:
    raise ValueError("the reason")


def unavailable() -> Callable[[], None]:
    raise BackendUnavailableError("Install the driver.")


def killed() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def test_sleeping_takes_time_and_spinning_takes_cpu_time() -> None:
    with Worker(sleeper, {"seconds": 0.2}) as asleep, Worker(spinner, {"seconds": 0.2}) as busy:
        timings = alternate({"asleep": asleep, "busy": busy}, budget_s=0, min_rounds=3)
    found = timings.summary()
    assert found["asleep"]["rounds"] == found["busy"]["rounds"] == 3
    assert found["asleep"]["wall_s"]["min"] >= 0.2
    assert found["asleep"]["cpu_s"]["p50"] < 0.1 <= 0.2 <= found["busy"]["cpu_s"]["p50"]
    ratio = timings.ratio("busy", "asleep")
    assert ratio["wall_lowest_round"] <= ratio["wall"] <= ratio["wall_highest_round"]
    assert ratio["cpu"] > 2


def test_memory_is_each_alternatives_own() -> None:
    here = np.ones(400 * 10**6, np.uint8)  # what this process holds is nobody's
    found = compare(
        {"small": (holder, {"megabytes": 1}), "large": (holder, {"megabytes": 300})},
        against="small",
        outputs=lambda workers: {"first": float(workers["large"].output()[0])},
        budget_s=0,
        min_rounds=1,
    )
    small, large = (found["alternatives"][name]["peak_bytes"] for name in ("small", "large"))
    assert here[0] == 1
    assert small < 200e6
    assert 290e6 < large - small < 310e6
    assert found["ratios"]["large"]["peak_memory"] == large / small
    assert found["derived"] == {"first": 1.0}


def test_what_is_not_installed_is_listed() -> None:
    found = compare({"there": (sleeper, {"seconds": 0}), "gone": (absent, {})}, budget_s=0, min_rounds=1)
    assert list(found["alternatives"]) == ["there"]
    assert found["not_run"] == {"gone": "no_such_package is not installed"}
    with pytest.raises(NotRunError, match="no_such_package"):
        Worker(absent, {})


def test_failures_are_told_apart() -> None:
    with pytest.raises(RuntimeError, match="the reason"):
        Worker(failing, {})
    with Worker(killed, {}) as worker, pytest.raises(RuntimeError, match="exit code -9"):
        worker.run()


def test_one_that_fails_does_not_end_the_others() -> None:
    refused: dict[str, str] = {}
    with Worker(killed, {}) as gone, Worker(sleeper, {"seconds": 0}) as there:
        timings = alternate({"gone": gone, "there": there}, budget_s=0, min_rounds=2, refused=refused)
    assert timings.summary()["there"]["rounds"] == 2
    assert list(timings.summary()) == ["there"]
    assert "exit code -9" in refused["gone"]


def test_an_error_of_ours_is_its_message_alone() -> None:
    with pytest.raises(RefusedError, match=r"^Install the driver\.$"):
        Worker(unavailable, {})


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert distribution(values) == {"p50": 50.5, "p90": 90.0, "p99": 99.0, "min": 1.0, "max": 100.0}
    assert set(distribution([2.0]).values()) == {2.0}

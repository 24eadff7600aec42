"""Several devices behind one backend: order, errors, memory, and what may be asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import SuperResolver, cli
from runtime.backends import BackendMemoryError, Box, Values, many
from runtime.backends.gpus import Gpu
from runtime.backends.many import ManyDevices, device_numbers
from runtime.backends.opening import open_backend
from runtime.errors import BackendUnavailableError, UsageError


class Device:
    """Doubles what it is given; may be slow, and may fail at its n-th run."""

    on_host, takes_bytes, largest_input, description = False, True, None, "a device"
    stages = None
    metadata: Any = None

    def __init__(self, *, seconds: float = 0, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.seconds, self.fails_at, self.error = seconds, fails_at, error
        self.runs, self.taken, self.given, self.most_ahead = 0, 0, 0, 0
        self.closed = False

    def run(self, lr: Values) -> Values:
        time.sleep(self.seconds)
        self.runs += 1
        if self.runs == self.fails_at and self.error is not None:
            raise self.error
        return lr * 2

    def run_kept(self, lr: Values, kept: Box) -> Values:
        return self.run(lr)

    def run_all(self, inputs: Iterable[Values]) -> Iterator[Values]:
        waiting = []
        for lr in inputs:
            self.taken += 1
            self.most_ahead = max(self.most_ahead, self.taken - self.given)
            waiting.append(self.run(lr))
            if len(waiting) == 2:
                self.given += 1
                yield waiting.pop(0)
        for result in waiting:
            self.given += 1
            yield result

    def cancel(self) -> None: ...

    def free_memory(self) -> int:
        return int(1000 * (1 + self.seconds))

    def close(self) -> None:
        self.closed = True


def numbers(count: int) -> list[np.ndarray]:
    return [np.array([number]) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 23])
def test_results_come_in_order_from_devices_of_unlike_speed(count):
    devices = [Device(seconds=0.004), Device(), Device(seconds=0.001)]
    results = [int(result[0]) for result in ManyDevices(devices).run_all(iter(numbers(count)))]
    assert results == [2 * number for number in range(count)]
    assert sum(device.runs for device in devices) == count
    assert all(device.most_ahead <= 3 for device in devices)
    assert not [thread for thread in threading.enumerate() if thread.name == "ignn-device"]


def test_no_more_inputs_are_taken_than_the_devices_may_hold():
    taken = 0

    def inputs():
        nonlocal taken
        for value in numbers(100):
            taken += 1
            yield value

    results = ManyDevices([Device(), Device()]).run_all(inputs())
    for given in range(1, 20):
        next(results)
        assert taken - given <= 2 * many.AHEAD
    results.close()
    assert taken < 30
    assert not [thread for thread in threading.enumerate() if thread.name == "ignn-device"]


@pytest.mark.parametrize("error", [BackendMemoryError("full"), RuntimeError("broken")])
def test_a_device_that_fails_ends_the_run_in_its_place(error):
    devices = [Device(), Device(fails_at=3, error=error)]
    found: list[int] = []
    results = ManyDevices(devices).run_all(iter(numbers(20)))
    with pytest.raises(type(error)):
        found.extend(int(result[0]) for result in results)
    # The second device gives what it has before it fails, or not: a caller runs again what has no result.
    assert found == [2 * number for number in range(len(found))]
    assert len(found) in (3, 5)


def test_inputs_that_fail_end_the_run():
    def inputs():
        yield np.array([1])
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        list(ManyDevices([Device(), Device()]).run_all(inputs()))
    assert not [thread for thread in threading.enumerate() if thread.name == "ignn-device"]


def test_single_runs_use_what_is_idle():
    devices = [Device(seconds=0.05), Device(seconds=0.05)]
    both = ManyDevices(devices)
    threads = [threading.Thread(target=both.run, args=(np.array([n]),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [device.runs for device in devices] == [2, 2]
    assert both.free_memory() == 1050
    both.close()
    assert all(device.closed for device in devices)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Two devices, each of which is an ONNX Runtime on the CPU; gives the providers and devices that were asked for."""
    asked: list[object] = []

    def open_one(path, source, backend, providers, threads, scale, value_range, device=None, precision=None):
        asked.append((providers, device))
        return open_backend(path, source, backend, ["cpu"], 1, scale, value_range)

    monkeypatch.setattr("runtime.super_resolver.open_backend", open_one)
    monkeypatch.setattr(many, "list_gpus", lambda: [Gpu("Fake", "8.6", "1")] * 2)
    return asked


def test_a_resolver_on_all_devices_gives_the_same_values(two_gpus, x2_model: Path, photograph: np.ndarray):
    expected = SuperResolver(x2_model, tile=48)(photograph)
    two_gpus.clear()
    with SuperResolver(x2_model, devices="all", tile=48) as resolver:
        assert np.array_equal(resolver(photograph), expected)
        assert "; " in resolver.description
        for result in resolver.map([photograph, photograph[:40], photograph[:, :50]]):
            assert np.array_equal(result, expected[: len(result), : result.shape[1]]) or result.shape != expected.shape
    assert two_gpus == [(["cuda"], 0), (["cuda"], 1)]


def test_the_command_takes_devices(two_gpus, x2_model: Path, sample: Path, tmp_path: Path, capsys):
    command = ["upscale", str(sample), "-o", str(tmp_path / "a.png"), "--model", str(x2_model)]
    assert cli.main([*command, "--devices", "1,0"]) == 0
    assert two_gpus == [(["cuda"], 1), (["cuda"], 0)]
    assert cli.main([*command, "--devices", "0,x"]) == 1
    assert "Invalid --devices ('0,x')" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [[], [0, 0], [-1], [0.5], "0", [True], ["0"]])
def test_what_are_no_devices(devices):
    with pytest.raises(UsageError, match="Invalid devices"):
        device_numbers(devices)


def test_all_of_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(many, "list_gpus", list)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU here"):
        device_numbers("all")


def test_devices_and_what_they_exclude(x2_model: Path):
    with pytest.raises(UsageError, match="Leave out one of them"):
        SuperResolver(x2_model, device=1, devices=[0, 1])
    with pytest.raises(UsageError, match=r"Invalid providers \(\['cpu'\]\)"):
        SuperResolver(x2_model, providers=["cpu"], devices=[0, 1])


def test_a_device_that_does_not_open_closes_the_others():
    first = Device()

    def open_one(number: int) -> Device:
        if number:
            raise BackendUnavailableError("none")
        return first

    with pytest.raises(BackendUnavailableError):
        many.open_many([0, 1], open_one)
    assert first.closed


def test_a_device_of_onnx_runtime(x2_model: Path, sample: Path, tmp_path: Path, monkeypatch, capsys):
    asked: list[object] = []

    def open_it(path, *, providers, **rest):
        asked.append(providers)
        raise UsageError("enough")

    monkeypatch.setattr("runtime.backends.ort.OrtBackend", open_it)
    command = ["upscale", str(sample), "-o", str(tmp_path / "a.png"), "--model", str(x2_model), "--device", "1"]
    assert cli.main([*command, "--provider", "cuda", "--provider", "cpu"]) == 1
    assert asked == [[("cuda", {"device_id": "1"}), "cpu"]]
    for wrong in ([], ["--provider", "cpu"]):
        capsys.readouterr()
        assert cli.main([*command, *wrong]) == 1
        assert "Say so: --provider cuda --device 1" in capsys.readouterr().err
    with pytest.raises(UsageError, match="say the same thing"):
        SuperResolver(x2_model, providers=[("cuda", {"device_id": "0"})], device=1)
    assert len(asked) == 1

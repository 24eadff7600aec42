"""Free memory is asked for, not guessed: from the system, the control group, this process's limit, and the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime import SuperResolver
from runtime.backends import memory


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program of that name, first on the path: the driver's edge."""

    def write(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return write


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_the_device_is_asked(nvidia_smi) -> None:
    nvidia_smi('[ "$1" = --id=1 ] && echo 4096')
    assert memory.free_device_memory(1) == 4 << 30
    for answer in ("echo '[N/A]'", "exit 9", "echo"):
        nvidia_smi(answer)
        assert memory.free_device_memory(1) == memory.UNKNOWN


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_auto_tiles_follow_the_device_that_the_network_runs_on(nvidia_smi, x2_model: Path) -> None:
    for mebibytes, whole in ((24_000, True), (100, False)):
        resolver = SuperResolver(x2_model, tile="auto")
        backend: Any = resolver.network.backend
        backend.on_host, backend._device = False, 0  # what the CUDA provider sets
        nvidia_smi(f"echo {mebibytes}")
        plan = resolver.network.plan(1000, 1000)  # of 2000 bytes a pixel
        assert (len(plan) == 1) == whole
        assert plan.crop_pixels * 2000 <= mebibytes << 20
        nvidia_smi("echo 1")  # the rest is the network's own by now
        assert resolver.network.plan(1000, 1000) == plan


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by the resource module")
def test_a_limit_of_the_process_counts() -> None:
    program = (
        "import resource; from runtime.backends.memory import free_host_memory, _address_space;"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "first = free_host_memory(); held = bytearray(300 << 20); print(first, first - free_host_memory())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, taken = map(int, result.stdout.split())
    assert 0 < first < 1 << 30
    assert abs(taken - (300 << 20)) < 20 << 20


def test_the_least_of_all_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for system, group, process, least in (
        (9, 5, 7, 5),
        (9, None, 7, 7),
        (3, 5, None, 3),
        (None, None, None, memory.UNKNOWN),
    ):
        for name, value in (("_system", system), ("_cgroup", group), ("_address_space", process)):
            monkeypatch.setattr(memory, name, lambda value=value: value)
        assert memory.free_host_memory() == least


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups_count_with_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version) -> None:
    """The least that any of them leaves; files that were read, and can be dropped, count as free."""
    root = tmp_path / ("" if version == 2 else "memory")
    limit, used, inactive = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )

    def group(path: str, most: str, taken: int, files: int) -> None:
        (root / path).mkdir(parents=True, exist_ok=True)
        for name, content in ((limit, most), (used, str(taken)), ("memory.stat", f"anon 7\n{inactive} {files}\n")):
            (root / path / name).write_text(content)

    own = tmp_path / "own"
    own.write_text("0::/user/app/worker\n" if version == 2 else "9:cpu:/\n4:memory:/user/app/worker\n0::/\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", own)
    assert memory._cgroup() is None  # no group says anything
    group("", "9000", 100, 0)
    group("user", "max", 100, 0)
    assert memory._cgroup() == 8900
    group("user/app", "5000", 4000, 500)
    assert memory._cgroup() == 1500
    group("user/app/worker", "1000", 900, 0)
    assert memory._cgroup() == 100
    group("user/app/other", "10", 10, 0)
    group("user/app/worker", "1000", 2000, 0)
    assert memory._cgroup() == 0
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "absent")
    assert memory._cgroup() is None

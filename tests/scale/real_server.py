"""Starts and breaks a real tritonserver, by `ignn serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PORTS = ("http", "grpc", "metrics")


class Server:
    """One `ignn serve`, on ports of its own that it keeps over a restart."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.ports = dict(zip(PORTS, free_ports(3), strict=True))
        self.process: Any = None  # a Popen, once it is started

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.ports['grpc']}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def start(self) -> None:
        ports = [text for name, port in self.ports.items() for text in (f"--{name}-port", str(port))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli", "serve", *self.arguments, *ports],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = self.process.stdout.readline()
        assert first.startswith("serving"), self.process.communicate(timeout=60)[1]

    def stop(self) -> str:
        """End it as a person would; return what it wrote to stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[1]

    def triton(self) -> int:
        """The process ID of tritonserver."""
        return next(pid for pid, parent, _ in processes() if parent == self.process.pid)

    def stubs(self) -> dict[str, int]:
        """Process IDs of what runs the models, by model."""
        triton = self.triton()
        found = {}
        for pid, parent, command in processes():
            if parent == triton and "triton_python_backend_stub" in command[0]:
                script = next(word for word in command if word.endswith("model.py"))
                found[Path(script).parents[1].name] = pid
        return found


def processes() -> Iterator[tuple[int, int, list[str]]]:
    """Yield process ID, parent, and command line of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        yield int(folder.name), parent, command


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def kill(pid: int) -> None:
    """Kill a process, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")

"""Finds NVIDIA's `tritonserver`, starts it on a model repository, and ends it with all its processes."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..clone import install_command
from ..errors import BackendUnavailableError, ServerError

END_SECONDS = 35
"""How long the server may take to end; it waits up to 30 s for requests under way."""


@dataclass(frozen=True)
class Ports:
    """Where the server listens: one address, three ports."""

    host: str = "127.0.0.1"
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    def arguments(self) -> list[str]:
        """Return the server's arguments: it would listen on every address by itself."""
        pairs = (("http", self.http), ("grpc", self.grpc), ("metrics", self.metrics))
        return [text for name, port in pairs for text in (f"--{name}-address={self.host}", f"--{name}-port={port}")]


@dataclass(frozen=True)
class Program:
    """A server that was found.

    Attributes:
        path: the program.
        wheel: the folder that the wheel nvidia-pytriton keeps it in; None for one that is installed as a whole.
    """

    path: Path
    wheel: Path | None = None

    def prepare(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """Return arguments and environment, after laying out what the wheel leaves to its user in `folder`."""
        environment = dict(os.environ)
        # The stub that runs our models starts the first python of PATH: this one, with this package.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        if self.wheel is None:
            return [], environment
        python = folder / "backends" / "python"
        python.mkdir(parents=True)
        for part in (self.wheel / "backends" / "python").iterdir():
            (python / part.name).symlink_to(part)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self.wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise BackendUnavailableError(
                f"The wheel nvidia-pytriton has no stub for Python {version}. Use 3.11 to 3.13."
            )
        shutil.copy(stub, python / stub.name)
        libraries = [str(self.wheel.parents[1] / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, environment.get("LD_LIBRARY_PATH", "")])
        return [f"--backend-directory={folder / 'backends'}"], environment


def find_program() -> Program:
    """Find the server: on PATH, as in NVIDIA's image, or in the wheel nvidia-pytriton.

    Raises:
        BackendUnavailableError: there is none, or not one that works with this NumPy.
    """
    if found := shutil.which("tritonserver"):
        return Program(Path(found))
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailableError(
            "There is no tritonserver here. Run this in NVIDIA's image (nvcr.io/nvidia/tritonserver), install it with: "
            f"{install_command('serve')}\nor write the repository for a server elsewhere: --only-repository FOLDER"
        )
    import numpy as np

    if int(np.__version__.split(".")[0]) >= 2:
        raise BackendUnavailableError(
            f"The server of the wheel nvidia-pytriton gives empty results with NumPy {np.__version__}. "
            f"In an environment of its own: {install_command('serve')}"
        )
    wheel = Path(next(iter(spec.submodule_search_locations))) / "tritonserver"
    return Program(wheel / "bin" / "tritonserver", wheel)


def server_command(repository: Path, ports: Ports, *, plugin: Path | None = None) -> list[str]:
    """Return the server's arguments.

    Args:
        repository: folder of the models.
        ports: where to listen.
        plugin: our plugin's self-registering library, for an engine without the plugin inside.
    """
    arguments = [
        f"--model-repository={repository}",
        "--disable-auto-complete-config",  # it would start each model twice
        "--model-control-mode=explicit",  # so that `ignn probe --recover` may load a model again
        "--load-model=*",
        *ports.arguments(),
    ]
    if any(repository.glob("*/1/model.plan")):
        # The plugin inside an engine is host code, which this option alone permits.
        arguments.append("--backend-config=tensorrt,version-compatible=true")
        if plugin is not None:
            arguments.append(f"--backend-config=tensorrt,plugins={plugin}")
    return arguments


@contextmanager
def running(program: Program, arguments: list[str], folder: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server, wait until it is ready, and end it and every process of it afterwards.

    Args:
        program: the server.
        arguments: of `server_command`.
        folder: an empty folder, for its log and what the wheel leaves to its user.
        ports: where it listens.

    Raises:
        ServerError: it ended before it was ready; the message holds the end of its log.
    """
    extra, environment = program.prepare(folder)
    log = folder / "tritonserver.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(program.path), *arguments, *extra],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # one group, which ends as a whole: a killed server leaves its stubs behind
            preexec_fn=_end_with_parent,
        )
    try:
        while not _is_ready(ports):
            if process.poll() is not None:
                raise ServerError(f"tritonserver ended with {process.returncode}:\n{_last_errors(log)}")
            time.sleep(0.2)
        yield process
    finally:
        _end(process)


def _end_with_parent() -> None:
    """Have the kernel end this new process when `ignn serve` is killed, which no handler of signals sees."""
    set_death_signal = 1  # PR_SET_PDEATHSIG; tritonserver exists for Linux alone
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _is_ready(ports: Ports) -> bool:
    host = "127.0.0.1" if ports.host == "0.0.0.0" else ports.host
    try:
        with urllib.request.urlopen(f"http://{host}:{ports.http}/v2/health/ready", timeout=5) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _last_errors(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    wrong = [line for line in lines if line.startswith("E") or "error" in line.lower()]
    return "\n".join((wrong or lines)[-5:])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)

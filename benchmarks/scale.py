"""`python -m benchmarks.scale`: a server under load, and `ignn batch` against `ignn upscale`, on this machine.

Needs the extra `test-serve` in an environment of its own. The server: eight clients, each with one request at a time,
for a minute. The batch: both commands take turns on the same pictures; what is compared is pictures a second from the
first output to the last, after both have started.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results import REPOSITORY, environment
from runtime.atomic import write_text
from runtime.cli import run_command
from runtime.errors import IgnnError, ServerError
from runtime.serving.remote import RemoteResolver

OUTPUT = REPOSITORY / "docs" / "scale.json"
MODEL = "edsr-s-x2"
CLIENTS = 8
SIDE = 64
MEMORY_SAMPLES = 8
PORTS = (18000, 18001, 18002)


def measure_server(seconds: float) -> dict[str, Any]:
    """Ask a server for `seconds` from eight clients; return rates, times, errors and memory."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    times: list[float] = []
    errors: list[str] = []
    with _server() as process, RemoteResolver(f"grpc://127.0.0.1:{PORTS[1]}", model=MODEL, in_flight=CLIENTS) as remote:
        remote(picture)
        end = time.monotonic() + seconds

        def ask() -> None:
            while time.monotonic() < end:
                start = time.perf_counter()
                try:
                    remote(picture)
                except IgnnError as error:
                    errors.append(str(error))
                times.append(time.perf_counter() - start)

        clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        memory = []
        for _ in range(MEMORY_SAMPLES):
            time.sleep(seconds / MEMORY_SAMPLES)
            memory.append(_memory_of(process.pid))
        for client in clients:
            client.join()
    cuts = statistics.quantiles(times, n=100)
    return {
        "model": MODEL,
        "picture": [SIDE, SIDE],
        "clients": CLIENTS,
        "seconds": seconds,
        "requests": len(times),
        "errors": len(errors),
        "pictures_per_second": len(times) / seconds,
        "seconds_p50": cuts[49],
        "seconds_p99": cuts[98],
        "memory_bytes": memory,
    }


def measure_batch(count: int, rounds: int) -> dict[str, Any]:
    """Enlarge a folder by both commands in turn; return medians of pictures a second and of the time to the first."""
    rng = np.random.default_rng(0)
    cores = len(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, float]]] = {"upscale": [], "batch": []}
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "in")
        source.mkdir()
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(source / f"{number}.png")
        for number in range(rounds):
            for name in found:
                out = Path(temporary, f"{name}{number}")
                arguments = [source, "-o", out] if name == "upscale" else [source, out, "--actors", cores]
                found[name].append(_timed([name, *map(str, arguments), "--model", MODEL], out, count))
    medians = {
        name: {key: statistics.median(each[key] for each in samples) for key in samples[0]}
        for name, samples in found.items()
    }
    ratio = medians["batch"]["pictures_per_second"] / medians["upscale"]["pictures_per_second"]
    return {"model": MODEL, "pictures": count, "rounds": rounds, "actors": cores, **medians, "batch_by_upscale": ratio}


def _timed(arguments: list[str], out: Path, count: int) -> dict[str, float]:
    start = time.time()
    subprocess.run([sys.executable, "-m", "runtime.cli", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
    seconds = time.time() - start
    written = sorted(path.stat().st_mtime for path in out.glob("*.png"))
    if len(written) != count:
        raise IgnnError(f"{len(written)} of {count} outputs were written.")
    return {
        "seconds": seconds,
        "seconds_to_the_first": written[0] - start,
        "pictures_per_second": (count - 1) / (written[-1] - written[0]),
    }


@contextmanager
def _server() -> Iterator[subprocess.Popen[str]]:
    ports = [
        text
        for name, port in zip(("http", "grpc", "metrics"), PORTS, strict=True)
        for text in (f"--{name}-port", str(port))
    ]
    cores = str(len(os.sched_getaffinity(0)))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "runtime.cli",
            "serve",
            "--model",
            MODEL,
            "--threads",
            "1",
            "--instances",
            cores,
            *ports,
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("serving"):
            raise ServerError("`ignn serve` did not start. Start it by hand to see why.")
        yield process
    finally:
        process.terminate()
        process.wait()


def _memory_of(root: int) -> int:
    """Return the resident bytes of a process and all below it."""
    total, below = 0, {root}
    entries = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    parents = {}
    for pid in entries:
        try:
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while fresh := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= fresh
    for pid in below:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def main() -> int:
    """Measure, write the JSON file, print the figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of load on the server (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=300, help="in the folder (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of both commands (default %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file (default: docs/scale.json)")
    arguments = parser.parse_args()
    load = os.getloadavg()
    document: dict[str, Any] = {
        "environment": environment(len(os.sched_getaffinity(0))),
        "load_average": load,
        "server": measure_server(arguments.seconds),
        "batch": measure_batch(arguments.pictures, arguments.rounds),
    }
    write_text(arguments.output, json.dumps(document, indent=1) + "\n")
    server, batch = document["server"], document["batch"]
    memory = ", ".join(f"{taken / 1e6:.0f}" for taken in server["memory_bytes"])
    sys.stdout.write(
        f"server: {server['requests']} pictures in {server['seconds']:.0f} s, {server['errors']} errors, "
        f"{server['pictures_per_second']:.2f} a second, half within {server['seconds_p50']:.2f} s, 99 % within "
        f"{server['seconds_p99']:.2f} s; memory, in equal steps: {memory} MB\n"
        f"batch: {batch['batch']['pictures_per_second']:.2f} pictures a second, {batch['batch_by_upscale']:.2f} of "
        f"`ignn upscale`; first picture after {batch['batch']['seconds_to_the_first']:.1f} s against "
        f"{batch['upscale']['seconds_to_the_first']:.1f} s\n-> {arguments.output}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.scale", main))

"""Does an engine that TensorRT-RTX built for another GPU run on this one, through the native backend?

    python -m benchmarks.gpu.rtx_engine MODEL.onnx [--size 256]

Builds MODEL for compute capabilities 8.0, 8.6, 8.9 and 12.0, the plugin inside, then runs each engine here by
runtime/backends/trt.py: time from host memory to host memory, and the difference from ONNX Runtime on the CPU. An
engine that the library refuses is listed with its message. Writes benchmarks/gpu/results/rtx_engine_<gpu>.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.report import require_gpu, write
from runtime.backends import BackendMemoryError
from runtime.backends.engine_build import BuildRequest, Profile, build_engine
from runtime.backends.ort import OrtBackend
from runtime.backends.plugin_library import check_plugin
from runtime.backends.trt import TrtBackend
from runtime.cli import run_command
from runtime.errors import IgnnError

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
RUNS = 10


def measure(model: Path, library: Path, capability: str, lr: NDArray[np.float32], expected: NDArray) -> dict[str, Any]:
    """Build for one compute capability and run here; return times and differences, or the error's text."""
    outcome: dict[str, Any] = {}
    size = (1, *lr.shape[2:])
    profile = Profile((1, 1, 1), size, (1, 2 * size[1], 2 * size[2]))
    request = BuildRequest("tensorrt-rtx", profile, library, compute_capability=capability)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "engine"
            report = build_engine(model.read_bytes(), request, path, source=model.name, quiet=True)
            outcome |= {"tensorrt_rtx": report.version, "engine_bytes": report.engine_bytes}
            backend = TrtBackend(model.read_bytes(), source=model.name, flavor="tensorrt-rtx", engine=path.read_bytes())
        free = backend.free_memory()
        difference = np.abs(backend.run(lr) - expected)
        outcome["device_memory_bytes"] = free - backend.free_memory()
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            backend.run(lr)
            times.append(1e3 * (time.perf_counter() - start))
        outcome |= {
            "host_to_host_ms": float(np.median(times)),
            "max_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
        }
    except (IgnnError, BackendMemoryError) as error:
        outcome["error"] = str(error)
    return outcome


def main(argv: list[str] | None = None) -> int:
    """Build and run an engine for each compute capability and write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=256, help="height and width of the LR image")
    parser.add_argument("--plugin", type=Path, help="libignn_plugin.so; default: in build/")
    arguments = parser.parse_args(argv)
    require_gpu()
    library = check_plugin(arguments.plugin)
    lr = np.random.default_rng(0).uniform(0, 255, (1, 3, arguments.size, arguments.size)).astype(np.float32)
    expected = OrtBackend(arguments.model, source=arguments.model.name, providers=["cpu"]).run(lr)
    engines = {capability: measure(arguments.model, library, capability, lr, expected) for capability in CAPABILITIES}
    write("rtx_engine", {"model": arguments.model.name, "engines": engines})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.rtx_engine", main))

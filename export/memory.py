"""Measure a model's memory: what the runtime's `tile="auto"` reckons with.

Runs as a process of its own (`python export/memory.py MODEL.onnx`), whose peak memory is the model's alone.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

_SIDES = (64, 160)


def measure_bytes_per_pixel(model: str | os.PathLike[str]) -> int:
    """Return how many bytes of peak memory each LR pixel costs on ONNX Runtime's CPU provider.

    The slope between two sizes: what the process needs by itself, weights included, does not count. It is rounded up
    to two digits, so that the same network gives the same file on most days.

    Raises:
        OSError: if the model cannot be run; the message is the runtime's.
    """
    done = subprocess.run([sys.executable, __file__, os.fspath(model)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"Measuring the memory of {model} failed: {done.stderr.strip()[-500:]}")
    measured = int(done.stdout)
    unit = 10 ** max(0, len(str(measured)) - 2)
    return -(-measured // unit) * unit


def _measure(model: str) -> int:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # as runtime/backends/ort.py has it
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    peaks = []
    for side in _SIDES:
        session.run(None, {"lr": np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)})
        peaks.append(_peak_bytes())
    if peaks[1] <= peaks[0]:
        raise OSError(f"peak memory did not grow from {peaks[0]} bytes")
    return (peaks[1] - peaks[0]) // (_SIDES[1] ** 2 - _SIDES[0] ** 2)


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins, on Linux, at what the parent process held
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.stdout.write(str(_measure(sys.argv[1])))

"""Measure a model's memory: what the runtime's `tile="auto"` reckons with.

Runs as a process of its own (`python -m export.memory MODEL.onnx`), whose peak memory is the model's alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from export.check import ExportError
from runtime.backends.memory import peak_memory, resident_memory, return_freed_memory
from runtime.backends.onnx_runtime import onnxruntime
from runtime.backends.ort import run_options, session_options

_SIDES = (128, 160, 192)


def measure_bytes_per_pixel(model: str | os.PathLike[str]) -> int:
    """Return how many bytes of peak memory each LR pixel costs on ONNX Runtime's CPU provider.

    The most that a run of one of several sizes adds to the loaded model, by pixel. It is rounded up to two digits, so
    that the same network gives the same file on most days.

    Raises:
        ExportError: the model cannot be run; the message is the runtime's.
    """
    command = [sys.executable, "-m", "export.memory", os.path.abspath(model)]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"Measuring the memory of {model} failed: {reason}")
    measured = int(done.stdout)
    unit = 10 ** max(0, len(str(measured)) - 2)
    return -(-measured // unit) * unit


def _measure(model: str) -> int:
    session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    return_freed_memory()
    loaded = resident_memory()
    worst = 0
    for side in _SIDES:
        lr = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
        session.run(None, {"lr": lr}, run_options())
        worst = max(worst, (peak_memory() - loaded) // side**2)
    if worst <= 0:
        raise ExportError(f"peak memory did not grow from {loaded} bytes")
    return worst


if __name__ == "__main__":
    sys.stdout.write(str(_measure(sys.argv[1])))

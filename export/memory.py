"""Measure a model's memory: what the runtime's `tile="auto"` reckons with.

Runs as a process of its own (`python -m export.memory MODEL.onnx`), whose peak memory is the model's alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from export.check import ExportError
from runtime.backends import Box
from runtime.backends.memory import peak_memory, resident_memory, return_freed_memory
from runtime.backends.onnx_runtime import onnxruntime
from runtime.backends.ort import OrtBackend, run_options, session_options

_SIDES = (128, 160, 192)
_STAGE_SIDE, _STAGE_VALUES = 384, 384 * 384 * 64
"""Side of the crop that the stages are measured on, and the most values of a map: a wide network's is smaller."""


def measure_stage_bytes(model: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Return how many bytes of peak memory a model's stages take for each LR pixel of a crop, its field and a band.

    See `runtime.metadata.StageFacts`. Measured on a crop that is one band, on a large one of which a small part is
    kept, and on that one kept whole; rounded up as those of `measure_bytes_per_pixel`.

    Raises:
        ExportError: the model cannot be run; the message is the runtime's.
    """
    crop_bytes, field_bytes, band_bytes = _in_own_process(model, "stages")
    return crop_bytes, field_bytes, band_bytes


def measure_bytes_per_pixel(model: str | os.PathLike[str]) -> int:
    """Return how many bytes of peak memory each LR pixel costs on ONNX Runtime's CPU provider.

    The most that a run of one of several sizes adds to the loaded model, by pixel. It is rounded up to two digits, so
    that the same network gives the same file on most days.

    Raises:
        ExportError: the model cannot be run; the message is the runtime's.
    """
    return _in_own_process(model, "graph")[0]


def _in_own_process(model: str | os.PathLike[str], what: str) -> list[int]:
    command = [sys.executable, "-m", "export.memory", os.path.abspath(model), what]
    folder = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"Measuring the memory of {model} failed: {reason}")
    return [_rounded_up(int(text)) for text in done.stdout.split()]


def _rounded_up(measured: int) -> int:
    unit = 10 ** max(0, len(str(measured)) - 2)
    return -(-measured // unit) * unit


def _measure_stages(model: str) -> list[int]:
    backend = OrtBackend(Path(model), source=model, providers=["cpu"])
    facts = backend.stages
    if facts is None:
        raise ExportError("the file has no stages")
    staged = backend.open_stages()
    side = min(_STAGE_SIDE, int((_STAGE_VALUES / facts.channels) ** 0.5))
    small, middle = side // 3, Box(side // 2 - 16, side // 2 - 16, side // 2 + 16, side // 2 + 16)
    lr = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    sr = np.zeros((1, 3, side * backend.metadata.scale, side * backend.metadata.scale), np.float32)
    loaded, peaks = _loaded(), []
    for size, kept in ((small, Box(0, 0, small, small)), (side, middle), (side, Box(0, 0, side, side))):
        staged.run(np.ascontiguousarray(lr[:, :, :size, :size]), kept, sr[:, :, : size * backend.metadata.scale])
        peaks.append(peak_memory() - loaded)
    one_band, of_crop, whole = peaks
    both = max(0, whole - one_band) // (side**2 - small**2)
    crop = min(both, of_crop // side**2)
    band = min(small, facts.band_rows(small)) * small
    return [crop, both - crop, max(0, one_band - both * small**2) // band]


def _measure_graph(model: str) -> int:
    session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    loaded = _loaded()
    worst = 0
    for side in _SIDES:
        lr = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
        session.run(None, {"lr": lr}, run_options())
        worst = max(worst, (peak_memory() - loaded) // side**2)
    if worst <= 0:
        raise ExportError(f"peak memory did not grow from {loaded} bytes")
    return worst


def _loaded() -> int:
    """Return what the process holds, and begin its peak anew there: a wide network takes more to load than to run."""
    return_freed_memory()
    with suppress(OSError):  # not Linux, or not permitted: the peak is that of loading at least
        Path("/proc/self/clear_refs").write_text("5")
    return resident_memory()


if __name__ == "__main__":
    found = _measure_stages(sys.argv[1]) if sys.argv[2] == "stages" else [_measure_graph(sys.argv[1])]
    sys.stdout.write(" ".join(map(str, found)))

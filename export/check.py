"""Proof of an exported file: valid ONNX, and the network's own results at sizes that were not traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.precision import emulate_half
from export.sample import sample
from runtime.backends import Box
from runtime.backends.onnx_runtime import onnxruntime
from runtime.backends.ort import OrtBackend
from runtime.errors import IgnnError
from runtime.pictures.psnr import psnr_db
from train import IGNN

SIZES = ((1, 40, 58), (2, 33, 47), (1, 7, 71))
"""(N, H, W): even and odd, two images at once, and one lower than the network's smallest graph (padded inside)."""
BOUNDS = {"fp32": 0.02, "fp16": 0.6}
"""Largest absolute difference from PyTorch's float32 on 0..255.

An fp16 file's holds for it and for its emulation. The bundled networks' emulations measure 0.31 at worst, and 79 dB.
"""
EMULATED_BOUND_DB = 75.0
"""Least PSNR, peak 255, of an fp16 file's emulation."""


class ExportError(IgnnError):
    """The ONNX file could not be made, or does not compute what the network does; nothing was written."""


def compare(path: Path, net: IGNN, precision: str) -> list[str]:
    """Check an ONNX file and compare ONNX Runtime's CPU results with PyTorch's float32 network.

    ONNX Runtime's CPU provider computes an fp16 file in float32. What float16 storage does to the result is measured on
    its emulation (`export.precision.emulate_half`), which computes as the tensor cores do.

    Args:
        path: the file.
        net: the network that was exported.
        precision: of the file; sets the bound.

    Returns:
        one line per size.

    Raises:
        ExportError: if ONNX's checker refuses the file or a difference exceeds its bound.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported file is not valid ONNX: {error}") from error
    session = _session(str(path))
    emulation = _session(emulate_half(onnx.load(path)).SerializeToString()) if precision == "fp16" else None
    lines, passed = [], True
    for number, (N, H, W) in enumerate(SIZES):
        lr = sample(N, H, W, seed=number)
        with torch.no_grad():
            expected = net(torch.from_numpy(lr)).numpy()
        difference, _ = _difference(_run(session, lr, expected), expected)
        passed &= difference <= BOUNDS[precision]
        line = f"{N} x 3 x {H} x {W}: worst difference {difference:.2g} of 255 (bound {BOUNDS[precision]:g})"
        if emulation is not None:
            difference, psnr = _difference(_run(emulation, lr, expected), expected)
            passed &= difference <= BOUNDS[precision] and psnr >= EMULATED_BOUND_DB
            line += (
                f"; with tensors rounded to float16 {difference:.2g}, {psnr:.1f} dB (bound {EMULATED_BOUND_DB:g} dB)"
            )
        lines.append(line)
    if not passed:
        raise ExportError("ONNX Runtime and PyTorch differ, nothing was written:\n  " + "\n  ".join(lines))
    return lines


def compare_stages(path: Path, net: IGNN) -> list[str]:
    """Compare the stages of a file (`export.stages`) with PyTorch, as `compare` does the graph.

    Returns:
        one line per size.

    Raises:
        ExportError: if a difference exceeds its bound.
    """
    backend = OrtBackend(path, source=str(path), providers=["cpu"])
    assert backend.stages is not None
    staged = backend.open_stages()
    lines = []
    for number, (_, H, W) in enumerate(SIZES):
        lr = sample(1, H, W, seed=number)
        with torch.no_grad():
            expected = net(torch.from_numpy(lr)).numpy()
        sr = np.zeros_like(expected)
        staged.run(lr, Box(0, 0, H, W), sr)
        difference, _ = _difference(sr, expected)
        lines.append(f"in stages, {H} x {W}: worst difference {difference:.2g} of 255 (bound {BOUNDS['fp32']:g})")
        if difference > BOUNDS["fp32"]:
            raise ExportError("The stages and PyTorch differ, nothing was written:\n  " + "\n  ".join(lines))
    return lines


def _session(model: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, lr: NDArray, expected: NDArray) -> NDArray:
    (actual,) = session.run(["sr"], {"lr": lr})
    if actual.shape != expected.shape or actual.dtype != np.float32:
        raise ExportError(
            f"For lr of {lr.shape} the file gives {actual.dtype} {actual.shape}, PyTorch float32 {expected.shape}."
        )
    return actual


def _difference(actual: NDArray, expected: NDArray) -> tuple[float, float]:
    """Return the largest absolute difference and the PSNR in dB, peak 255; (inf, -inf) where a value is not finite."""
    if not np.isfinite(actual).all():
        return float("inf"), float("-inf")
    difference = actual.astype(np.float64) - expected
    return float(np.abs(difference).max()), psnr_db(actual, expected)

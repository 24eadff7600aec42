"""Proof of an exported file: valid ONNX, and the network's own results at sizes that were not traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch

from runtime.backends.onnx_runtime import onnxruntime
from train import IGNN

SIZES = ((1, 40, 58), (2, 33, 47), (1, 7, 71))
"""(N, H, W): even and odd, two images at once, and one lower than the network's smallest graph (padded inside)."""
BOUNDS = {"fp32": 0.02, "fp16": 1.0}
"""Largest absolute difference from PyTorch on 0..255. Neighbors are chosen in float32 by either."""


class ExportError(RuntimeError):
    """The ONNX file could not be made or is not the network; the message says where they differ."""


def compare(path: Path, net: IGNN, precision: str) -> list[str]:
    """Check an ONNX file and compare ONNX Runtime's CPU results with PyTorch's float32 network.

    Args:
        path: the file.
        net: the network that was exported.
        precision: of the file; sets the bound.

    Returns:
        one line per size.

    Raises:
        ExportError: if ONNX's checker refuses the file or a difference exceeds the bound.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported file is not valid ONNX: {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    lines, worst = [], 0.0
    for number, (N, H, W) in enumerate(SIZES):
        lr = sample(N, H, W, seed=number)
        with torch.no_grad():
            expected = net(torch.from_numpy(lr)).numpy()
        (actual,) = session.run(["sr"], {"lr": lr})
        if actual.shape != expected.shape or actual.dtype != np.float32:
            raise ExportError(
                f"For lr of {lr.shape} the file gives {actual.dtype} {actual.shape}, PyTorch float32 {expected.shape}."
            )
        difference = float(np.abs(actual - expected).max()) if np.isfinite(actual).all() else float("inf")
        worst = max(worst, difference)
        lines.append(f"{N} x 3 x {H} x {W}: worst difference {difference:.2g} of 255 (bound {BOUNDS[precision]:g})")
    if not worst <= BOUNDS[precision]:
        raise ExportError("ONNX Runtime and PyTorch differ, nothing was written:\n  " + "\n  ".join(lines))
    return lines


def sample(N: int, H: int, W: int, seed: int) -> np.ndarray:
    """Return images with smooth shading, edges and some noise: (N, 3, H, W) float32, whole numbers 0..255."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W].astype(np.float32)
    phase = generator.uniform(0, 6, (N, 3, 1, 1)).astype(np.float32)
    slope = generator.uniform(0.05, 0.4, (N, 3, 1, 1)).astype(np.float32)
    shading = 120 + 60 * np.sin(slope * x + phase) + 40 * np.sign(np.sin(0.3 * (x + 2 * y) + phase))
    return np.clip(np.round(shading + generator.normal(0, 4, (N, 3, H, W))), 0, 255).astype(np.float32)

"""Small networks with a graph, exported once for all tests: tracing takes most of their time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from train import IGNN, IGNNConfig

KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "fp32": (2, {}),
    "fp32 with half weights": (3, {"weights": "fp16"}),
    "fp16": (4, {"precision": "fp16"}),
}
"""Scale, and arguments of the export."""
Exported = Callable[[str], tuple[IGNN, Path]]


def network(scale: int = 2) -> IGNN:
    torch.manual_seed(scale)
    return IGNN(IGNNConfig(scale=scale, channels=16, blocks=2, graph_after=1, residual_scale=1.0)).eval()


def exporter(new_folder: Callable[[], Path]) -> Exported:
    """Return a function that exports each kind once, to a file in a new folder."""
    from export.to_onnx import export_onnx

    @cache
    def make(kind: str) -> tuple[IGNN, Path]:
        scale, arguments = KINDS[kind]
        path = new_folder() / "model.onnx"
        export_onnx(network(scale), path, **arguments)
        return network(scale), path

    return make

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
    "errors": (2, {}),
}
"""Scale, and arguments of the export."""
Exported = Callable[[str], tuple[IGNN, Path]]


def network(scale: int = 2, graph: str = "graphagg") -> IGNN:
    torch.manual_seed(scale)
    config = IGNNConfig(scale=scale, channels=16, blocks=2, graph_after=1, residual_scale=1.0, graph=graph)
    net = IGNN(config).eval()
    if graph == "errors":  # whose weights begin all alike
        for parameter in net.errors.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def exporter(new_folder: Callable[[], Path]) -> Exported:
    """Return a function that exports each kind once, to a file in a new folder."""
    from export.to_onnx import export_onnx

    @cache
    def make(kind: str) -> tuple[IGNN, Path]:
        scale, arguments = KINDS[kind]
        path, graph = new_folder() / "model.onnx", "errors" if kind == "errors" else "graphagg"
        export_onnx(network(scale, graph), path, **arguments)
        return network(scale, graph), path

    return make

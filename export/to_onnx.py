"""Checkpoint in, ONNX file out: one file for ONNX Runtime and TensorRT, any batch size, height and width."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # `python export/to_onnx.py` is `ignn export`, in a clone that need not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from runtime.cli import main as ignn

    sys.exit(ignn(["export", *sys.argv[1:]]))

import onnx
import onnx.inliner
import torch

from export.check import compare, compare_stages
from export.functions import DOMAIN, functions
from export.memory import measure_bytes_per_pixel, measure_stage_bytes
from export.metadata import metadata, stage_metadata
from export.network import ExportedErrorNet, ExportedIGNN
from export.precision import round_weights, store_weights_as_half, to_half
from export.stages import add_stages
from export.tracing import traced
from runtime.atomic import atomic_path
from runtime.errors import UsageError
from train import IGNN
from train.checkpoint import Checkpoint, read_checkpoint
from train.warm_start import plain_backbone, take_backbone_out

Precision = Literal["fp32", "fp16"]

_TRACED_SIZE = (2, 3, 37, 41)


def to_onnx(net: IGNN) -> onnx.ModelProto:
    """Translate a network: input `lr` (N, 3, H, W), output `sr` (N, 3, scale*H, scale*W), both float32 RGB 0..255.

    Each graph operator is one node of domain `ignn`, with the plugin's attributes and a model-local function as body.
    A network without a graph holds standard operators alone.
    """
    has_graph = net.config.graph != "none"
    dynamic = {0: torch.export.Dim("N", min=1), 2: torch.export.Dim("H", min=1), 3: torch.export.Dim("W", min=1)}
    exported = {"graphagg": ExportedIGNN, "errors": ExportedErrorNet}
    module = exported[net.config.graph](net) if has_graph else net
    model = traced(module, (torch.zeros(_TRACED_SIZE),), (dynamic,), ["lr"], ["sr"])
    if has_graph:
        model.functions.extend(functions())
    return model


def inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same network with the operators' bodies in the graph itself, for runtimes that take no functions."""
    inlined = onnx.inliner.inline_local_functions(model)
    used = [entry for entry in inlined.opset_import if not entry.domain.startswith(DOMAIN)]
    del inlined.opset_import[:]
    inlined.opset_import.extend(used)
    return inlined


def export_onnx(
    net: IGNN,
    output: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    weights: Precision = "fp32",
    inlined: bool = False,
) -> list[str]:
    """Write a network as an ONNX file and prove it; the file appears whole and proven, or not at all.

    Args:
        net: the network.
        output: file to write.
        precision: what convolutions compute in, and the maps that neighbors are searched in; "fp16" keeps the
            embedding, sums of distances, statistics, softmax, input and output in float32.
        weights: "fp16" rounds the weights and stores those of an fp32 model in half the space; the runtime widens them
            once, on loading. What is compared is the network with rounded weights.
        inlined: put the operators' bodies into the graph, as OpenVINO needs them. TensorRT needs the default.

    Returns:
        one line per comparison with PyTorch.

    Raises:
        ExportError: the file differs from the network by more than rounding explains.
        UsageError: an argument is wrong.
        WriteError: the file cannot be written.
    """
    for name, value in (("precision", precision), ("weights", weights)):
        if value not in ("fp32", "fp16"):
            raise UsageError(f"Invalid {name} ({value!r}). Supported values are fp32, fp16.")
    config = net.config
    if config.graph not in ("none", "errors") and (config.graph, config.adapn, config.ecn) != ("graphagg", True, True):
        raise UsageError(
            f"Invalid network (graph={config.graph!r}, adapn={config.adapn}, ecn={config.ecn}). The paper's "
            "comparisons are for measuring (`ignn evaluate`). Supported are graph='graphagg' with adapn and ecn, "
            "graph='errors' and graph='none'."
        )
    if config.graph == "errors" and precision == "fp16":
        raise UsageError(
            "Invalid precision ('fp16') for a network with graph='errors'. It searches neighbors in its own features, "
            "and float16 would find others. Use precision fp32; weights may be stored as fp16."
        )
    output = Path(output)
    if not output.parent.is_dir():
        raise UsageError(f"Folder {output.parent} does not exist. Create it first: mkdir -p {output.parent}")
    exported = round_weights(net) if weights == "fp16" else net
    model = to_onnx(exported)
    if precision == "fp16":
        model = to_half(model)
    elif weights == "fp16":
        model = store_weights_as_half(model)
    if inlined:
        model = inline(model)
    with atomic_path(output) as temporary:
        onnx.save(model, str(temporary))
        lines = compare(temporary, exported, precision)
        facts = metadata(exported, precision, measure_bytes_per_pixel(temporary))
        if config.graph == "graphagg" and precision == "fp32" and not inlined:
            lines += _add_proven_stages(model, exported, facts, temporary)
        onnx.helper.set_model_props(model, facts)
        onnx.save(model, str(temporary))
    return lines


def _add_proven_stages(model: onnx.ModelProto, net: IGNN, facts: dict[str, str], file: Path) -> list[str]:
    """Add the stages, and what the metadata says of them; the file is written on the way. Return lines of proof."""
    add_stages(model, net)
    facts |= stage_metadata(net.config, 0, 0, 0)
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, str(file))
    lines = compare_stages(file, net)
    facts |= stage_metadata(net.config, *measure_stage_bytes(file))
    return lines


def load_trained(path: Path, *, without_graph: bool = False) -> IGNN:
    """Load what a checkpoint was trained as: of the backbone stage, whose graph is still random, the plain backbone.

    Args:
        path: the checkpoint.
        without_graph: the plain backbone of a whole network as well (as training does that begins at one).

    Raises:
        CheckpointError: it holds no network.
    """
    return trained_network(read_checkpoint(path), without_graph=without_graph)


def trained_network(checkpoint: Checkpoint, *, without_graph: bool = False) -> IGNN:
    """Return the network of a checkpoint as `load_trained` does."""
    net = checkpoint.network()
    if checkpoint.stage == "backbone":
        return plain_backbone(net)
    if without_graph:
        take_backbone_out(net)
        return plain_backbone(net)
    return net


def main(argv: list[str] | None = None) -> int:
    """Export as the flags say (`ignn export`)."""
    parser = argparse.ArgumentParser(prog="ignn export", description="Export a checkpoint to one ONNX file.")
    parser.add_argument("--checkpoint", required=True, type=Path, help="a checkpoint, ours or the released code's")
    parser.add_argument("--output", required=True, type=Path, help="ONNX file to write")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16"],
        default="fp32",
        help="what convolutions compute in; sums of distances, statistics and softmax stay in fp32 (default: fp32)",
    )
    parser.add_argument(
        "--weights",
        choices=["fp32", "fp16"],
        default="fp32",
        help="how an fp32 model stores its weights: fp16 halves the file and costs nothing at run time (default: fp32)",
    )
    parser.add_argument(
        "--inline",
        action="store_true",
        help="put the graph operators' bodies into the graph: for OpenVINO and others that take no functions "
        "(TensorRT needs the default file)",
    )
    arguments = parser.parse_args(argv)
    net = load_trained(arguments.checkpoint)
    if net.config.graph == "none":
        sys.stdout.write("The network has no graph: what is exported is plain EDSR.\n")
    sys.stdout.write(f"Exporting {arguments.checkpoint} and comparing ONNX Runtime with PyTorch ...\n")
    lines = export_onnx(
        net,
        arguments.output,
        precision=arguments.precision,
        weights=arguments.weights,
        inlined=arguments.inline,
    )
    for line in lines:
        sys.stdout.write(f"  {line}\n")
    sys.stdout.write(f"Wrote {arguments.output} ({arguments.output.stat().st_size / 1e6:.1f} MB).\n")
    return 0

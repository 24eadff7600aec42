"""Put a trained network among the bundled models: `python -m export.bundle --checkpoint C --name N --data FOLDER`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from export.precision import round_weights
from export.to_onnx import export_onnx, trained_network
from runtime.atomic import atomic_path, make_folder, write_text
from runtime.cli import run_command
from train import save_checkpoint
from train.checkpoint import read_checkpoint
from train.errors import CheckpointError
from train.evaluate import evaluate, load_onnx_upscaler, markdown_table, summarise

_ROOT = Path(__file__).resolve().parent.parent
MODELS = _ROOT / "runtime" / "models"
WEIGHTS = _ROOT / "train" / "weights"

_TRAINING_DATA = (
    "353 crops of free photographs and the 24 Kodak photographs: budgie-backgrounds (CC0), "
    "xubuntu-community-artwork (CC0, CC-BY, CC-BY-SA), "
    "pop-os/wallpapers (public domain, CC-BY), ubuntu-mate-artwork (CC0, CC-BY-SA), Kodak (unrestricted usage); "
    "CID22 (CC-BY-SA-4.0) and CLIC 2025 (Unsplash License)"
)


def bundle(
    checkpoint: Path,
    name: str,
    folders: list[Path],
    license_name: str,
    *,
    backbone: Path | None,
    default: bool,
    without_graph: bool,
    training_data: str = _TRAINING_DATA,
) -> str:
    """Export with fp16-stored weights into `runtime/models`, measure the file itself and describe it in `models.json`.

    The same weights go to `train/weights` as a checkpoint, unless it lies there already.

    Args:
        checkpoint: a trained network, or one of stage backbone, which becomes a model without a graph.
        name: what users will call it; also the file's name.
        folders: HR images to measure on, e.g. Set5.
        license_name: SPDX name of the weights' licence.
        backbone: the plain EDSR that its training began at, which goes to `train/weights` as well: other graphs, and
            longer training, can begin there too.
        without_graph: bundle the plain backbone of a whole network.
        default: whether `SuperResolver()` takes it from now on.
        training_data: what it was trained on, and by which licences.

    Returns:
        the measured table, in Markdown.

    Raises:
        IgnnError: as exporting and measuring do, before any file changes.
    """
    trained = read_checkpoint(checkpoint)
    net = trained_network(trained, without_graph=without_graph)
    edsr = None if backbone is None else read_checkpoint(backbone)
    if edsr is not None and edsr.stage != "backbone":
        raise CheckpointError(f"Checkpoint {backbone} is not of stage backbone. Give it as --checkpoint, or none.")
    file = MODELS / f"{name}.onnx"
    with atomic_path(file) as new:
        for line in export_onnx(net, new, weights="fp16"):
            sys.stderr.write(f"  {line}\n")
        upscale, scale = load_onnx_upscaler(new)
        summary = summarise(evaluate({name: upscale}, folders, scale))
        content = new.read_bytes()
    # The very numbers of the ONNX file, for whoever trains on.
    make_folder(WEIGHTS)
    if checkpoint.resolve().parent != WEIGHTS.resolve():
        save_checkpoint(round_weights(net).half(), WEIGHTS / f"{name}.pt", stage=trained.stage)
    if edsr is not None:
        save_checkpoint(round_weights(edsr.network()).half(), WEIGHTS / f"{name}-backbone.pt", stage="backbone")
    entry = {
        "name": name,
        "file": file.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "kind": {"none": "plain", "graphagg": "graph"}.get(net.config.graph, net.config.graph),
        "scale": scale,
        "precision": "fp16",
        "training_data": training_data,
        "license": license_name,
        "psnr_y_db": {row["dataset"]: round(row["psnr"], 2) for row in summary if row["method"] == name},
        "seconds": None,  # `python -m benchmarks models`, then `report`
        "seconds_on": "",
    }
    index = MODELS / "models.json"
    known: dict[str, Any] = {"default": name, "models": []}
    if index.exists():
        known = json.loads(index.read_text(encoding="utf-8"))
    models = [model for model in known["models"] if model["name"] != name] + [entry]
    models.sort(key=lambda model: model["name"])
    described = {"default": name if default else known["default"], "models": models}
    write_text(index, json.dumps(described, indent=2) + "\n")
    return markdown_table(summary)


def main(argv: list[str] | None = None) -> int:
    """Bundle a network as the flags say, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m export.bundle", description=__doc__)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--name", required=True, help="e.g. ignn-s-x2")
    parser.add_argument("--data", required=True, action="append", type=Path, metavar="FOLDER", help="HR images")
    parser.add_argument("--backbone", type=Path, help="checkpoint of stage backbone that its training began at")
    parser.add_argument("--without-graph", action="store_true", help="bundle the plain backbone of a whole network")
    parser.add_argument("--license", default="CC-BY-SA-4.0", help="SPDX name (default: %(default)s)")
    parser.add_argument("--training-data", default=_TRAINING_DATA, metavar="TEXT", help="what it was trained on, with "
                        "licences (default: %(default)s)")  # fmt: skip
    parser.add_argument("--default", action="store_true", help="make it the model of SuperResolver()")
    arguments = parser.parse_args(argv)
    table = bundle(
        arguments.checkpoint,
        arguments.name,
        arguments.data,
        arguments.license,
        backbone=arguments.backbone,
        default=arguments.default,
        without_graph=arguments.without_graph,
        training_data=arguments.training_data,
    )
    sys.stdout.write(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m export.bundle", main))

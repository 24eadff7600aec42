"""Draw and keep the curve of training runs: PSNR by step, and how much the fusions read of the graph
(`ignn curve`)."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from runtime.atomic import atomic_path, write_text
from runtime.cli import run_command
from runtime.clone import install_command
from runtime.errors import UsageError
from train.checkpoint import read_checkpoint

_SETTINGS = (
    "stage", "steps", "period", "batch", "patch", "learning_rate", "muon", "graph_loss", "warmup", "schedule", "ema",
    "seed", "copies", "augment",
)  # fmt: skip
"""What of a run's settings is kept: no paths."""
_SHARE = "graph_share_"


def read_run(folder: Path) -> dict[str, Any]:
    """Return a run's name, settings and validations.

    Returns:
        name: of the folder.
        settings: those that shape a curve, and the fields of the network's configuration as `network`.
        points: by validation, `step`, `psnr` (dB) and, of a network with a graph, `graph_share_fuse_b`, `..._fuse_up`.

    Raises:
        UsageError: the folder holds no run, or one that never validated.
        CheckpointError: its checkpoint cannot be read.
    """
    log, last = folder / "log.jsonl", folder / "last.pt"
    if not (log.is_file() and last.is_file()):
        raise UsageError(
            f"Invalid run ({folder}). It must be the --output of `ignn train`, with log.jsonl and last.pt."
        )
    checkpoint = read_checkpoint(last)
    if checkpoint.run is None:
        raise UsageError(f"Invalid run ({folder}). Its last.pt holds weights alone, no run.")
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    points = [record for record in records if "psnr" in record]
    if not points:
        raise UsageError(
            f"Invalid run ({folder}). It has not validated yet: train with --validation FOLDER or --held-out, and "
            "--validate-every."
        )
    settings = {name: checkpoint.run.fit[name] for name in _SETTINGS if name in checkpoint.run.fit}
    return {
        "name": folder.resolve().name,
        "settings": settings | {"network": checkpoint.config.to_dict()},
        "points": points,
    }


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the runs as one SVG file: PSNR above, the graph's share of the fusions' weights below if there is any.

    Raises:
        UsageError: matplotlib is not installed.
        WriteError: the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(f"A plot needs matplotlib. Install it: {install_command('bench')}") from error
    matplotlib.rcParams["svg.hashsalt"] = "ignn"  # the same runs draw the same file
    shares = [
        (f"{run['name']}, {key.removeprefix(_SHARE)}", [(point["step"], point[key]) for point in run["points"]])
        for run in runs
        for key in run["points"][0]
        if key.startswith(_SHARE) and all(key in point for point in run["points"])
    ]
    panels = 2 if shares else 1
    figure = Figure(figsize=(6, 3 * panels), layout="constrained")
    axes = figure.subplots(panels, squeeze=False)[:, 0]
    for run in runs:
        axes[0].plot([p["step"] for p in run["points"]], [p["psnr"] for p in run["points"]], "o-", label=run["name"])
    axes[0].set(ylabel="PSNR, dB")
    for label, line in shares:
        axes[1].plot(*zip(*line, strict=True), "o-", label=label)
    if shares:
        axes[1].set(ylabel="graph's share of the weights", ylim=0)
    for panel in axes:
        panel.grid(visible=True, alpha=0.3)
        panel.legend()
    axes[-1].set(xlabel="step")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        svg = temporary.read_text(encoding="utf-8")
        temporary.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Write the curves of runs (`ignn curve`)."""
    parser = argparse.ArgumentParser(prog="ignn curve", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders that `ignn train` wrote")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.svg", help="the plot; the numbers go "
                        "beside it, as FILE.json")  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.output.suffix.lower() != ".svg":
        raise UsageError(f"Invalid --output ({arguments.output}). The plot is an SVG file, e.g. -o curve.svg")
    runs = [read_run(folder) for folder in arguments.runs]
    draw(runs, arguments.output)
    write_text(arguments.output.with_suffix(".json"), json.dumps({"runs": runs}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.curve", main))

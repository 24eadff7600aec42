"""Small pictures alone and in batches, in turns: whether `batch` of `SuperResolver.map` pays on the CPU.

Each alternative enlarges the same eight pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from benchmarks import subjects
from runtime.commands.measure import compare

PICTURES = 8
PAYS = 0.05
"""Share of the time that a batch must save to be worth its memory."""


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    names, sides, batches = (["tiny"], [32], [1, 8]) if quick else (["ignn-s", "edsr-s"], [64, 128], [1, 2, 4, 8])
    return [
        {"model": name, "side": side, "batches": batches, "threads": threads, "budget_s": 1 if quick else 60}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name))}
        for name in names
        for side in sides
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure all batch sizes of one network and picture size in turns."""
    arguments = {"model": str(subjects.onnx_file(config["model"])), "side": config["side"]}
    arguments["threads"] = config["threads"]
    alternatives = {f"batch {batch}": (pictures, {**arguments, "batch": batch}) for batch in config["batches"]}
    return compare(alternatives, against="batch 1", budget_s=config["budget_s"])


def pictures(model: str, side: int, threads: int, batch: int) -> Callable[[], NDArray]:
    """Return a call that enlarges eight pictures, so many at once."""
    run_network, lr = subjects.onnx_runtime_network(model, threads), subjects.lr_input(side, side, batch)

    def run() -> NDArray:
        for _ in range(PICTURES // batch):
            sr = run_network(lr)
        return sr

    return run


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return no targets: the table is the result."""
    return []


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        config, found = row["config"], row["measurements"]
        for batch, (label, numbers) in zip(config["batches"], found["alternatives"].items(), strict=True):
            ratio = found["ratios"].get(label, {"wall": 1.0, "cpu": 1.0})
            lines.append(
                {
                    "model": config["model"],
                    "LR": f"{config['side']} x {config['side']}",
                    "batch": batch,
                    "pictures/s": PICTURES / numbers["wall_s"]["p50"],
                    "time over batch 1's": ratio["wall"],
                    "by CPU time": ratio["cpu"],
                    "peak memory, MB": numbers["peak_bytes"] / 1e6,
                    "rounds": numbers["rounds"],
                }
            )
    return lines


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return where batches pay."""
    paying = [
        f"{line['model']} at {line['LR']} with a batch of {line['batch']}"
        for line in table(rows)
        if line["time over batch 1's"] <= 1 - PAYS
    ]
    found = f"Batches save more than {PAYS:.0%} of the time here: {', '.join(paying)}." if paying else ""
    return [found or f"No batch saves more than {PAYS:.0%} of the time here: leave `batch` at 1 on a CPU like this."]


def curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is plotted: labels and, by line, batches and values."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for line in table(rows):
        lines.setdefault(f"{line['model']}, {line['LR']}", []).append((line["batch"], line["time over batch 1's"]))
    return {"x": "batch", "y": "time over batch 1's", "lines": lines}

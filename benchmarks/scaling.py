"""Time by the number of pixels: the slope of their logarithms is 1 where time grows linearly."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import subjects
from benchmarks.results import target
from runtime.commands.measure import compare


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    name, sizes = ("tiny", [32, 64]) if quick else ("ignn-s", [64, 128, 256, 512, 1024])
    return [
        {"model": name, "sizes": sizes, "threads": threads, "budget_s": 1 if quick else 120}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name))}
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure all sizes in turns."""
    model = str(subjects.onnx_file(config["model"]))
    alternatives = {
        f"{size} x {size}": (
            subjects.onnx_runtime,
            {"model": model, "height": size, "width": size, "threads": config["threads"]},
        )
        for size in config["sizes"]
    }
    measurements = compare(alternatives, budget_s=config["budget_s"])
    pixels = np.square(config["sizes"], dtype=np.float64)
    for kind in ("wall", "cpu"):
        seconds = [found[f"{kind}_s"]["p50"] for found in measurements["alternatives"].values()]
        measurements["derived"][f"{kind}_slope"] = float(np.polyfit(np.log(pixels), np.log(seconds), 1)[0])
    return measurements


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the target of the slope, with what was measured."""
    found = []
    for row in rows:
        name, sizes = row["config"]["model"], row["config"]["sizes"]
        text = f"{name}, {sizes[0]} x {sizes[0]} to {sizes[-1]} x {sizes[-1]}: log-log slope of time"
        found.append(target(text, row["measurements"]["derived"]["wall_slope"], 1.05, ""))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    return [
        {
            "model": row["config"]["model"],
            "LR": size,
            "time, s": found["wall_s"]["p50"],
            "microseconds a pixel": found["wall_s"]["p50"] / side**2 * 1e6,
            "of CPU time": found["cpu_s"]["p50"] / side**2 * 1e6,
        }
        for row in rows
        for side, (size, found) in zip(row["config"]["sizes"], row["measurements"]["alternatives"].items(), strict=True)
    ]


def curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is plotted: labels and, by line, pixels and values."""
    return {
        "x": "LR pixels",
        "y": "time, s",
        "logarithmic": True,
        "lines": {
            row["config"]["model"]: [
                (size**2, found["wall_s"]["p50"])
                for size, found in zip(
                    row["config"]["sizes"], row["measurements"]["alternatives"].values(), strict=True
                )
            ]
            for row in rows
        },
    }

"""Peak resident memory of a process that enlarges one image as a whole, by the image's size."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import subjects
from benchmarks.results import target
from runtime.commands.measure import Worker, alternate

SIZES = {"ignn": (32, 64, 96, 128, 192), "ignn-s": (64, 128, 256, 384, 512), "tiny": (32, 48, 64)}
CHANNELS = {"ignn": 256, "ignn-s": 64, "tiny": 16}
TARGETS = {("ignn", 128): 0.8e9, ("ignn-s", 512): 1.2e9}


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    return [
        {"model": name, "sizes": list(SIZES[name]), "threads": threads}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name)), "api": "SuperResolver(tile=None)"}
        for name in (["tiny"] if quick else ["ignn-s", "ignn"])
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure every size in a process of its own; fit bytes = constant + slope * pixels."""
    model = str(subjects.onnx_file(config["model"]))
    alternatives: dict[str, dict[str, Any]] = {}
    for size in config["sizes"]:
        arguments = {"model": model, "height": size, "width": size, "threads": config["threads"]}
        with Worker(subjects.super_resolver, arguments) as worker:
            name = f"{size} x {size}"
            alternatives |= alternate({name: worker}, budget_s=0, min_rounds=0, max_rounds=1).summary()
    pixels = np.square(config["sizes"], dtype=np.float64)
    peaks = np.array([found["peak_bytes"] for found in alternatives.values()], dtype=np.float64)
    slope, constant = np.polyfit(pixels, peaks, 1)
    bend = np.abs(constant + slope * pixels - peaks).max() / peaks.max()
    derived = {"bytes_per_pixel": float(slope), "constant_bytes": float(constant), "largest_deviation": float(bend)}
    return {"alternatives": alternatives, "against": None, "ratios": {}, "derived": derived}


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the targets of peak memory and of its growth, with what was measured."""
    found = []
    for row in rows:
        name, measurements = row["config"]["model"], row["measurements"]
        for (model, size), limit in TARGETS.items():
            if model == name:
                peak = measurements["alternatives"][f"{size} x {size}"]["peak_bytes"]
                found.append(target(f"{name}, {size} x {size} whole: peak memory", peak / 1e9, limit / 1e9, "GB"))
        high_resolution = 4 * 4 * CHANNELS[name]  # bytes of one feature map of 2H x 2W, by LR pixel
        slope = measurements["derived"]["bytes_per_pixel"] / high_resolution
        found.append(target(f"{name}: growth by pixel, in feature maps of 2H x 2W", slope, 6.0, "maps"))
        bend = measurements["derived"]["largest_deviation"]
        found.append(target(f"{name}: deviation from linear growth", bend, 0.05, "of the peak"))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    return [
        {
            "model": row["config"]["model"],
            "LR": size,
            "peak memory, MB": found["peak_bytes"] / 1e6,
            "fit: MB": row["measurements"]["derived"]["constant_bytes"] / 1e6,
            "+ bytes a pixel": row["measurements"]["derived"]["bytes_per_pixel"],
        }
        for row in rows
        for size, found in row["measurements"]["alternatives"].items()
    ]


def curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is plotted: labels and, by line, pixels and values."""
    return {
        "x": "LR pixels",
        "y": "peak memory, MB",
        "lines": {
            row["config"]["model"]: [
                (size**2, found["peak_bytes"] / 1e6)
                for size, found in zip(
                    row["config"]["sizes"], row["measurements"]["alternatives"].values(), strict=True
                )
            ]
            for row in rows
        },
    }

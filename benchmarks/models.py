"""One photograph of 256 x 256 through each bundled network, in turns; its seconds also stand in `ignn models`."""

from __future__ import annotations

from typing import Any

from benchmarks import subjects
from runtime.commands.measure import compare
from runtime.models import FOLDER, bundled_models

SIDE = 256


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure: the networks of each scale."""
    by_scale: dict[int, dict[str, str]] = {}
    for model in sorted(bundled_models(), key=lambda model: model.name):
        by_scale.setdefault(model.scale, {})[model.name] = model.sha256
    scales = sorted(by_scale)[: 1 if quick else None]
    side = 32 if quick else SIDE
    return [
        {"scale": scale, "models_sha256": by_scale[scale], "height": side, "width": side, "threads": threads}
        | {"budget_s": 1 if quick else 60}
        for scale in scales
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure the networks of one scale."""
    size = {key: config[key] for key in ("height", "width", "threads")}
    alternatives = {
        name: (subjects.onnx_runtime, {"model": str(FOLDER / f"{name}.onnx"), **size})
        for name in config["models_sha256"]
    }
    return compare(alternatives, against=next(iter(alternatives)), budget_s=config["budget_s"])


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return no targets: none are set."""
    return []


def seconds(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median time by the SHA-256 of the network's file."""
    return {
        row["config"]["models_sha256"][name]: found["wall_s"]["p50"]
        for row in rows
        for name, found in row["measurements"]["alternatives"].items()
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    return [
        {
            "model": name,
            "LR": f"{config['height']} x {config['width']}",
            "time, s": found["wall_s"]["p50"],
            "MP/s out": config["scale"] ** 2 * config["height"] * config["width"] / 1e6 / found["wall_s"]["p50"],
            "rounds": found["rounds"],
        }
        for row in rows
        for config in [row["config"]]
        for name, found in row["measurements"]["alternatives"].items()
    ]

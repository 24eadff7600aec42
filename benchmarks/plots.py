"""The results as SVG files beside the JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks.results import ResultsError, load, read_all
from runtime.clone import install_command

_BARS = {
    "baseline": ("time, s", ("model", "version")),
    "graph_overhead": ("ratio", ("runtime", "model")),
    "large": ("microseconds a pixel", ("network", "LR")),
    "models": ("time, s", ("model",)),
    "peers": ("time, s", ("network, runtime",)),
    "profile": ("time, ms", ("node",)),
    "startup": ("CPU time, s", ("process", "LR")),
    "throughput": ("MP/s out", ("model", "LR", "batch", "backend", "precision", "threads")),
}
"""Of benchmarks without a curve: the table's column that is drawn, and the columns that name a bar."""


def draw(folder: Path) -> None:
    """Draw each results file of `folder` as an SVG file beside it.

    Raises:
        ResultsError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ResultsError(f"Plots need matplotlib. Install it: {install_command('bench')}") from error
    matplotlib.rcParams["svg.hashsalt"] = "ignn"  # the same JSON draws the same file
    for name, document in read_all(folder).items():
        benchmark, rows = load(name), document["rows"]
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        if name in _BARS:
            _draw_bars(axes, benchmark.table(rows), *_BARS[name])
            figure.set_size_inches(7, 1 + 0.3 * len(axes.patches))
        else:
            _draw_curves(axes, benchmark.curves(rows))
            figure.set_size_inches(5, 3.2)
        axes.grid(visible=True, alpha=0.3)
        svg = folder / f"{name}.svg"
        figure.savefig(svg, metadata={"Date": None})
        svg.write_text(re.sub(r"[ \t]+\n", "\n", svg.read_text(encoding="utf-8")), encoding="utf-8")


def _draw_bars(axes: Any, lines: list[dict[str, Any]], value: str, names: tuple[str, ...]) -> None:  # noqa: ANN401
    lines = [line for line in lines if not isinstance(line.get(value, ""), str)]  # without what was not run
    labels = [
        ", ".join(f"{name} {line[name]}" if isinstance(line[name], int) else line[name] for name in names if line[name])
        for line in lines
    ]
    axes.barh(labels, [line[value] for line in lines])
    axes.invert_yaxis()
    axes.set(xlabel=value)


def _draw_curves(axes: Any, plot: dict[str, Any]) -> None:  # noqa: ANN401
    for label, points in plot["lines"].items():
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    for name, point in plot.get("points", {}).items():
        axes.plot(*point, marker="o", color="C0")
        axes.annotate(name, point, xytext=(5, -10), textcoords="offset points")
    if plot.get("logarithmic"):
        axes.loglog()
    elif "points" in plot:
        axes.semilogx()
        axes.margins(x=0.15)
    else:
        axes.set(xlim=0, ylim=0)
    axes.set(xlabel=plot["x"], ylabel=plot["y"])
    axes.legend()

"""The README's performance section and the plots, made from the committed JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.measure import load
from benchmarks.results import REPOSITORY, ResultsError, read

README = REPOSITORY / "README.md"
BEGIN, END = "<!-- benchmarks: begin (python -m benchmarks report) -->", "<!-- benchmarks: end -->"
REASONS = Path(__file__).resolve().parent / "reasons.json"
"""Why a goal is missed, by the goal's text: written by people, demanded by `report`."""

_MACHINE = ("cpu", "cores", "threads", "memory_bytes", "system", "python", "libraries")
_TABLES = {"peers": "The same photograph, what one would take instead", "throughput": "Throughput"}
_BARS = {
    "baseline": ("time, s", ("model", "version")),
    "graph_overhead": ("ratio", ("runtime", "model")),
    "peers": ("time, s", ("network, runtime",)),
    "startup": ("CPU time, s", ("process", "LR")),
    "throughput": ("MP/s out", ("model", "LR", "batch", "backend", "precision", "threads")),
}
"""Of what has no curve: the table's column that is drawn, and those that name a bar."""


def update_readme(folder: Path, readme: Path = README) -> None:
    """Replace the README's performance section, and draw the plots beside the JSON.

    Raises:
        ResultsError: the README has no such section, results are of different machines, or a missed goal has no reason.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ResultsError(f"{readme} must hold these two lines once, the section goes between them:\n{BEGIN}\n{END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{section(folder)}{END}{after}", encoding="utf-8")
    draw(folder)


def section(folder: Path) -> str:
    """Return the performance section, Markdown."""
    documents = _documents(folder)
    reasons = json.loads(REASONS.read_text(encoding="utf-8"))
    lines = [_machine(documents), ""]
    goals = [
        {
            "goal": goal["goal"],
            "at most": f"{_shown(goal['limit'])} {goal['unit']}".strip(),
            "measured": f"{_shown(goal['measured'])} {goal['unit']}".strip(),
            "": _verdict(goal, reasons),
        }
        for document in documents.values()
        for goal in document["goals"]
    ]
    if goals:
        lines.append(markdown(goals))
    for name, title in _TABLES.items():
        if name in documents:
            benchmark, rows = load(name), documents[name]["rows"]
            lines += [f"**{title}** (`python -m benchmarks {name}`)", "", markdown(benchmark.table(rows))]
            lines += [f"{line}\n" for line in getattr(benchmark, "remarks", lambda rows: [])(rows)]
    plots = ", ".join(f"[{name}](benchmarks/results/{name}.svg)" for name in documents)
    lines.append(f"Drawn: {plots}.\n")
    return "\n".join(lines)


def _documents(folder: Path) -> dict[str, dict[str, Any]]:
    documents = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    if not documents:
        raise ResultsError(f"{folder} holds no results. Measure first: python -m benchmarks all")
    first = next(iter(documents))
    for name, document in documents.items():
        differing = [k for k in _MACHINE if document["environment"][k] != documents[first]["environment"][k]]
        if differing:
            raise ResultsError(
                f"{name}.json and {first}.json were not measured on the same machine and libraries "
                f"({', '.join(differing)} differ): they cannot stand in one table. Measure one of them again: "
                f"python -m benchmarks {name} --fresh"
            )
    return documents


def _machine(documents: dict[str, dict[str, Any]]) -> str:
    environment = next(iter(documents.values()))["environment"]
    rows = [row for document in documents.values() for row in document["rows"]]
    loads = [row["load_average"][0] for row in rows]
    libraries = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items() if version)
    commits = sorted({_short(document["environment"]["commit"]) for document in documents.values()})
    return (
        f"Measured on {environment['cpu']}, {environment['cores']} cores, {environment['threads']} threads, "
        f"{environment['memory_bytes'] / 2**30:.0f} GiB; {environment['system']}, Python {environment['python']}, "
        f"{libraries}; commit {', '.join(commits)}; {min(row['measured_at'] for row in rows)[:10]}. "
        f"Load average before each measurement: {min(loads):.1f} to {max(loads):.1f}"
        + (
            " (other programs were running: ratios of alternatives that took turns are sounder than times)."
            if max(loads) > 1
            else "."
        )
    )


def _short(commit: str) -> str:
    digits, _, modified = commit.partition("-")
    return digits[:10] + (f" ({modified})" if modified else "")


def _verdict(goal: dict[str, Any], reasons: dict[str, str]) -> str:
    if goal["met"]:
        return "met"
    if goal["goal"] not in reasons:
        raise ResultsError(
            f"Goal {goal['goal']!r} is missed ({goal['measured']:.3g}, at most {goal['limit']:.3g}) and "
            f"{REASONS.name} does not say why. Add that key with a sentence to benchmarks/{REASONS.name}."
        )
    return f"missed: {reasons[goal['goal']]}"


def markdown(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table of lines that have the first line's columns; numbers with three digits."""
    columns = list(lines[0])
    cells = [columns, *([_shown(line.get(column, "")) for column in columns] for line in lines)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def _shown(value: Any) -> str:  # noqa: ANN401 (a cell)
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(folder: Path) -> None:
    """Draw the results as SVG files beside the JSON.

    Raises:
        ResultsError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ResultsError("Plots need matplotlib. Install it: pip install -e '.[bench]'") from error
    matplotlib.rcParams["svg.hashsalt"] = "ignn"  # the same JSON draws the same file
    for name, document in _documents(folder).items():
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
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        svg = folder / f"{name}.svg"
        svg.write_text(re.sub(r"[ \t]+\n", "\n", svg.read_text(encoding="utf-8")), encoding="utf-8")


def _draw_bars(axes: Any, lines: list[dict[str, Any]], value: str, names: tuple[str, ...]) -> None:  # noqa: ANN401
    lines = [line for line in lines if not isinstance(line[value], str)]  # what was not run
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
    if plot.get("logarithmic"):
        axes.loglog()
    else:
        axes.set(xlim=0, ylim=0)
    axes.set(xlabel=plot["x"], ylabel=plot["y"])
    axes.legend()

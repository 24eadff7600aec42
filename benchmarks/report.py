"""What is made from the committed results: `benchmarks/README.md`, two sections of the repository's README, and the
seconds of `runtime/models/models.json`."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.cards import read_quality
from benchmarks.models import seconds
from benchmarks.plots import draw
from benchmarks.results import (
    FOLDER,
    REPOSITORY,
    ResultsError,
    demand_one_machine,
    load,
    machine_of,
    read,
    read_all,
)
from runtime.models import FOLDER as MODELS
from runtime.models import BundledModel, bundled_models

NOTES = Path(__file__).resolve().parent / "reasons.json"
"""Why a figure is above its target, by the figure's name: written by people, demanded by `report`."""

_TITLES = {
    "batches": "Batches of small pictures",
    "baseline": "A straightforward version",
    "graph_overhead": "The graph beside its convolutions",
    "large": "A large photograph",
    "memory": "Memory",
    "models": "The bundled networks",
    "peers": "Other networks and runtimes",
    "profile": "Where the time goes",
    "quality_per_second": "Quality by time",
    "scaling": "Time against pixels",
    "startup": "Start",
    "throughput": "Throughput",
}


_OF_PERFORMANCE = ("throughput", "memory", "large")
"""Benchmarks whose figures stand in the README's one paragraph."""


def update_pages(folder: Path, repository: Path = REPOSITORY) -> None:
    """Write the generated sections of both pages, and draw the plots beside the JSON.

    Raises:
        ResultsError: a page lacks a section's markers, what stands in one table is of different machines, a figure
            above its target has no note, or a model's card is incomplete. No page is changed then.
    """
    readme, page = repository / "README.md", repository / "benchmarks" / "README.md"
    changed = {readme: _replaced(readme, "models", models_section(folder))}
    changed[readme] = _replaced(readme, "performance", performance_section(folder), changed[readme])
    changed[page] = _replaced(page, "results", results_section(folder))
    changed[repository / MODELS.relative_to(REPOSITORY) / "models.json"] = models_index(folder)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    draw(folder)


def markers(name: str) -> tuple[str, str]:
    """Return the two lines between which a page's generated section stands."""
    return f"<!-- {name}: begin (python -m benchmarks report) -->", f"<!-- {name}: end -->"


def _replaced(path: Path, name: str, section: str, text: str | None = None) -> str:
    text = path.read_text(encoding="utf-8") if text is None else text
    begin, end = markers(name)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ResultsError(f"{path} must hold these two lines once, the section goes between them:\n{begin}\n{end}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{section}{end}{rest.split(end)[1]}"


def models_section(folder: Path = FOLDER) -> str:
    """Return the README's table of models: quality by the cards, seconds by the measurements."""
    models = bundled_models()
    note = (
        "PSNR (dB) on luma by the paper's protocol; Urban10: ten of Urban100. "
        "`edsr-s`: the backbone alone; `ignn-e`: with a graph of its errors; `ignn-s`: with the paper's graph; "
        f"default: `{models[0].name}`. Seconds: one photograph of 256 x 256, "
        f"{_timed_on(read(folder / 'models.json'))}. More: the card."
    )
    lines = [line for scale in (2, 3, 4) for line in _scale_lines(scale, models, folder)]
    return f"{markdown(lines)}\n{_wrapped(note)}"


def _scale_lines(scale: int, models: list[BundledModel], folder: Path) -> list[dict[str, Any]]:
    """Return the lines of one scale: bicubic and the bundled models."""
    sets = list(dict.fromkeys(name for model in models for name in model.psnr_y_db))
    here = sorted((model for model in models if model.scale == scale), key=lambda model: model.name)
    cards = {model.name: read_quality(model) for model in here}
    scores = {name: card[name] for name, card in cards.items()}
    for card in cards.values():
        scores.setdefault("bicubic", card["bicubic"])
    times = seconds(read(folder / "models.json")["rows"])
    shown_times = {model.name: shown(times.get(model.sha256, "not measured")) for model in here}
    names = {model.name: f"[**{model.name}**](runtime/models/{model.name}.md)" for model in here}
    sizes = {model.name: f"{model.size_bytes / 1e6:.1f} MB" for model in here}
    return [
        {
            "scale": f"x{scale}",
            "network": shown_name,
            "file": sizes.get(method, ""),
            **{name: _decibels(scores.get(method, {}).get(name)) for name in sets},
            "seconds": shown_times.get(method, ""),
        }
        for method, shown_name in ({"bicubic": "bicubic"} | names).items()
    ]


def _decibels(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def models_index(folder: Path = FOLDER) -> str:
    """Return `models.json` with what was measured of the files that it describes."""
    index = json.loads((MODELS / "models.json").read_text(encoding="utf-8"))
    document = read(folder / "models.json")
    times = seconds(document["rows"])
    for entry in index["models"]:
        measured = times.get(entry["sha256"])
        entry["seconds"], entry["seconds_on"] = measured, "" if measured is None else _timed_on(document)
    return json.dumps(index, indent=2) + "\n"


def _timed_on(document: dict[str, Any]) -> str:
    environment = document["environment"]
    return f"ONNX Runtime on {environment['threads']} threads of {environment['cpu']}"


def performance_section(folder: Path = FOLDER) -> str:
    """Return the README's one paragraph on speed and memory."""
    documents = {name: read(folder / f"{name}.json") for name in _OF_PERFORMANCE}
    demand_one_machine(documents)
    rows = {name: document["rows"] for name, document in documents.items()}
    machine = next(iter(documents.values()))["environment"]
    size = {"model": "ignn-s", "height": 256, "width": 256, "batch": 1, "threads": machine["threads"]}
    throughput = _row(rows["throughput"], **size, backend="ONNX Runtime", precision="fp32")
    memory = _row(rows["memory"], model="ignn-s")["alternatives"]["256 x 256"]["peak_bytes"]
    photograph = _row(rows["large"], ours="ignn-s", height=3000, width=4000)
    whole = photograph["derived"]["ignn-s, within 4 GB"]
    small = photograph["derived"]["ignn-s, 256 x 256 whole"]
    by_pixel = whole["seconds"] / whole["pixels"] / (small["seconds"] / small["pixels"])
    peak = photograph["alternatives"]["ignn-s, within 4 GB"]["peak_bytes"]
    plain = photograph["derived"]["edsr-s, within 2 GB"]["seconds"]
    text = (
        f"`ignn-s` x2 on ONNX Runtime, {machine['threads']} threads of {machine['cpu']}: a PNG of 256 x 256 "
        "to one of 512 x 512 in "
        f"{shown(throughput['alternatives']['pipeline']['wall_s']['p50'])} s with {shown(memory / 1e6)} MB of memory "
        "at most. A photograph of 4000 x 3000 within "
        f"{shown(peak / 1e9)} GB takes {shown(whole['seconds'] / 60)} minutes (counted from {whole['share']:.0%} of "
        f"it), by pixel {shown(by_pixel)} times as long as the small one; `edsr-s` takes {shown(plain / 60)} minutes. "
        "All tables, plots and the commands that made them: [benchmarks/README.md](benchmarks/README.md)."
    )
    return _wrapped(text)


def _row(rows: list[dict[str, Any]], **config: Any) -> dict[str, Any]:
    for row in rows:
        if config.items() <= row["config"].items():
            return row["measurements"]
    raise ResultsError(f"No row of {config} among the results. Measure first: python -m benchmarks all")


def results_section(folder: Path = FOLDER) -> str:
    """Return the tables and plots of `benchmarks/README.md`."""
    documents = read_all(folder)
    notes = json.loads(NOTES.read_text(encoding="utf-8"))
    machines = [machine_of(document) for document in documents.values()]
    usual = max(machines, key=machines.count)
    elsewhere = {name for name, document in documents.items() if machine_of(document) != usual}
    lines = [_machine([document for name, document in documents.items() if name not in elsewhere])]
    if elsewhere:
        lines.append("On another machine or with other libraries, which their sections name: " + _titles(elsewhere))
    lines += ["## Key figures", ""]
    figures = [_figure(entry, notes) for document in documents.values() for entry in document["targets"]]
    if figures:
        lines.append(markdown(figures))
    for name, document in documents.items():
        benchmark, rows = load(name), document["rows"]
        about = (benchmark.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        lines += [f"## {_TITLES.get(name, name)}", "", f"{about} Command: `python -m benchmarks {name}`", ""]
        lines += [_machine([document])] if name in elsewhere else []
        lines.append(markdown(benchmark.table(rows)))
        lines += [f"{line}\n" for line in getattr(benchmark, "remarks", lambda rows: [])(rows)]
        lines.append(f"![{_TITLES.get(name, name)}, drawn](results/{name}.svg)\n")
    return "\n".join(lines)


def _titles(names: set[str]) -> str:
    return ", ".join(_TITLES.get(name, name) for name in sorted(names)) + ".\n"


def _figure(entry: dict[str, Any], notes: dict[str, str]) -> dict[str, str]:
    name = entry["figure"]
    if not entry["met"] and name not in notes:
        raise ResultsError(
            f"{name!r} is above its target ({entry['measured']:.3g}, at most {entry['limit']:.3g}) and {NOTES.name} "
            f"does not say why. Add that key with a sentence to benchmarks/{NOTES.name}."
        )
    return {
        "figure": name,
        "measured": f"{shown(entry['measured'])} {entry['unit']}".strip(),
        "target, at most": f"{shown(entry['limit'])} {entry['unit']}".strip(),
        "note": "" if entry["met"] else notes[name],
    }


def _machine(documents: list[dict[str, Any]]) -> str:
    environment = documents[0]["environment"]
    rows = [row for document in documents for row in document["rows"]]
    loads = [row["load_average"][0] for row in rows]
    libraries = ", ".join(f"{name} {version}" for name, version in environment["libraries"].items() if version)
    commits = sorted({_short(document["environment"]["commit"]) for document in documents})
    text = (
        f"Measured on {environment['cpu']}, {environment['cores']} cores, {environment['threads']} threads, "
        f"{environment['memory_bytes'] / 2**30:.0f} GiB; {environment['system']}, Python {environment['python']}, "
        f"{libraries}; commit {', '.join(commits)}; {min(row['measured_at'] for row in rows)[:10]}. "
        f"Load average before each measurement: {min(loads):.1f} to {max(loads):.1f}."
    )
    if max(loads) > 1:
        text += " Other programs were running: ratios of alternatives that took turns are more reliable than times."
    return _wrapped(text)


def _short(commit: str) -> str:
    digits, _, modified = commit.partition("-")
    return digits[:10] + (f" ({modified})" if modified else "")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def markdown(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table of lines that have the first line's columns; numbers with three digits."""
    columns = list(lines[0])
    cells = [columns, *([shown(line.get(column, "")) for column in columns] for line in lines)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def shown(value: Any) -> str:  # noqa: ANN401 (a cell)
    """Return a table's cell: a float with three significant digits, anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""Write the tables of `train/scores/scoreboard.json`, beside quoted rows: `python -m train.scoreboard_table`.

All scales go to `train/scores/README.md`, each scale to its models' cards, between markers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from runtime.atomic import write_text
from runtime.cli import run_command
from runtime.errors import IgnnError
from runtime.models import FOLDER as MODELS
from runtime.models import bundled_models
from train.scoreboard import SCORES, bundled_methods

QUOTED = SCORES.with_name("quoted.json")
PAGE = SCORES.with_name("README.md")
SETS = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")
_BEGIN, _END = "<!-- scoreboard: begin (python -m train.scoreboard_table) -->", "<!-- scoreboard: end -->"

Row = dict[str, Any]


def table(rows: list[Row], quoted: list[Row], scale: int) -> str:
    """Return one scale's Markdown tables: the whole sets with the quoted rows, then the first images of some.

    Args:
        rows: of `scoreboard.json`.
        quoted: entries of `quoted.json`.
        scale: 2, 3 or 4.
    """
    rows = [row for row in rows if row["scale"] == scale]
    ours = [method.name for method in bundled_methods(scale)]
    methods = [*ours, *sorted({row["method"] for row in rows} - set(ours))]  # peers
    whole = {(row["method"], row["dataset"]): _cell(row) for row in rows if row["images"] == row["of"]}
    lines = [["method", *SETS]]
    lines += [[method, *(whole.get((method, name), "not measured") for name in SETS)] for method in methods]
    for entry in quoted:
        figures = entry["scales"][str(scale)]
        cells = [f"*{figures[name][0]:.2f} / {figures[name][1]:.4f}*" for name in SETS]
        lines.append([f"*{entry['method']}*", *cells])
    text = _markdown(lines)

    parts = [row for row in rows if row["images"] < row["of"]]
    columns = list(dict.fromkeys((name, row["images"], row["of"]) for name in SETS for row in parts
                                 if row["dataset"] == name))  # fmt: skip
    if columns:
        part = {(row["method"], row["dataset"], row["images"]): _cell(row) for row in parts}
        lines = [["method", *(f"{name}, first {count} of {of}" for name, count, of in columns)]]
        lines += [
            [method, *(part.get((method, name, count), "not measured") for name, count, _ in columns)]
            for method in methods
        ]
        text += f"\n{_markdown(lines)}"
    return text


def _cell(row: Row) -> str:
    return f"{row['psnr']:.2f} / {row['ssim']:.4f}"


def _markdown(lines: list[list[str]]) -> str:
    header, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *rest])


def pages() -> dict[Path, str]:
    """Return what every page must hold.

    Raises:
        IgnnError: a card lacks the markers.
    """
    rows = json.loads(SCORES.read_text(encoding="utf-8"))["rows"]
    quoted = json.loads(QUOTED.read_text(encoding="utf-8"))
    sources = "".join(f"- *{entry['method']}*: {entry['source']}\n" for entry in quoted)
    scales = "".join(f"\n## x{scale}\n\n{table(rows, quoted, scale)}" for scale in (2, 3, 4))
    section = f"{scales}\nQuoted, not measured here (in italics):\n\n{sources}"
    made = {PAGE: _replaced(PAGE, section)}
    for model in bundled_models():
        card = MODELS / f"{model.name}.md"
        made[card] = _replaced(card, table(rows, quoted, model.scale))
    return made


def _replaced(path: Path, section: str) -> str:
    text = path.read_text(encoding="utf-8")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise IgnnError(f"{path} must hold these two lines once, the table goes between them:\n{_BEGIN}\n{_END}")
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n{section}{_END}{rest.split(_END)[1]}"


def main() -> int:
    """Write all pages."""
    for path, text in pages().items():
        write_text(path, text)
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.scoreboard_table", main))

"""The quality tables of the model cards: `runtime/models/NAME.md`, section "Quality"."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import ResultsError
from runtime.models import FOLDER, BundledModel

Scores = dict[str, dict[str, float | None]]
"""By method and set, PSNR on luma in dB; None: not measured."""


def read_quality(model: BundledModel, folder: Path = FOLDER) -> Scores:
    """Read a model's card.

    Args:
        model: an entry of `models.json`.
        folder: where the cards are.

    Returns:
        One row for each method of the table: bicubic, the model, and what else the card lists.

    Raises:
        ResultsError: there is no such card or table, or it contradicts `models.json`.
    """
    path = folder / f"{model.name}.md"
    try:
        section = path.read_text(encoding="utf-8").split("\n## Quality\n")[1].split("\n## ")[0]
    except (OSError, IndexError) as error:
        raise ResultsError(f"{path} has no section '## Quality'. Write the model's card.") from error
    table = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    if len(table) < 3 or table[0][0] != "method":
        raise ResultsError(f"{path}: its section Quality has no table that begins with the column `method`.")
    (_, *sets), _, *rows = table
    scores = {method: dict(zip(sets, map(_psnr, values), strict=True)) for method, *values in rows}
    if scores.get(model.name) != model.psnr_y_db:
        raise ResultsError(
            f"{path} says {scores.get(model.name)} of {model.name}, and models.json {model.psnr_y_db}. Measure again "
            "with `ignn evaluate` and correct the one that is wrong."
        )
    return scores


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _psnr(cell: str) -> float | None:
    """Return the PSNR of a cell such as `37.45 / 0.9588`."""
    return None if cell == "not measured" else float(cell.split("/")[0])

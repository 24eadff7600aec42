"""The rows of the paper's tables 1 to 6: train and measure each by its name (also `ignn ablation`).

`ignn ablation table2-same-scale --output RUN --evaluate Set5 -- --data PHOTOS --start EDSR.pt ...` trains the row's
network, measures it, and adds the result to RUN/results.json and RUN/results.md. What follows `--` goes to `ignn train`
as it stands, the same for every row: schedule, preset, data. A table's name (`table2`) stands for all its rows. What is
in results.json already is not run again; an unfinished training resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.atomic import make_folder, write_text
from runtime.cli import run_command
from runtime.errors import IgnnError, UsageError
from train import fit
from train.checkpoint import read_checkpoint
from train.errors import TrainingError
from train.evaluate import evaluate, load_upscaler, self_ensemble, summarise
from train.fit_config import parse_config

WHOLE_IMAGE = 1_000_000
"""A window no image exceeds."""


@dataclass(frozen=True)
class Row:
    """One row (or column) of a table of the paper."""

    label: str
    """What the paper's table calls it."""
    network: dict[str, Any] = field(default_factory=dict)
    """What it changes in the network (see train.config)."""
    scale: int = 2
    ensemble: bool = False
    """Measure with self-ensemble as well (IGNN+)."""


ROWS = {
    **{f"table1-x{scale}": Row(f"IGNN x{scale}", scale=scale, ensemble=True) for scale in (2, 3, 4)},
    "table2-edsr": Row("EDSR baseline", {"graph": "none"}),
    "table2-non-local": Row("non-local block", {"graph": "non-local"}),
    "table2-same-scale": Row("same-scale kNN", {"graph": "same-scale"}),
    "table2-graphagg": Row("GraphAgg"),
    # Eighths of the body: after blocks 8, 16 and 24 of 32.
    "table3-after-8": Row("graph after block 8", {"graph_after": 8}),
    "table3-after-16": Row("graph after block 16", {"graph_after": 16}),
    "table3-after-24": Row("graph after block 24", {"graph_after": 24}),
    **{f"table4-d{d}": Row(f"window {d}", {"window": d}) for d in (10, 20, 30)},
    "table4-whole": Row("window: whole image", {"window": WHOLE_IMAGE}),
    **{f"table5-k{k}": Row(f"k = {k}", {"neighbors": k}) for k in range(1, 12)},
    "table6-neither": Row("without AdaPN and ECN", {"adapn": False, "ecn": False}),
    "table6-no-adapn": Row("without AdaPN", {"adapn": False}),
    "table6-no-ecn": Row("without ECN", {"ecn": False}),
    "table6-both": Row("AdaPN and ECN"),
}
"""Every row of the paper's tables, by the name of its preset."""


def choose(names: Iterable[str]) -> list[str]:
    """Return row names, tables resolved to their rows.

    Raises:
        UsageError: a name is neither a row nor a table.
    """
    chosen: list[str] = []
    for name in names:
        rows = [row for row in ROWS if row == name or row.startswith(f"{name}-")]
        if not rows:
            raise UsageError(f"Unknown row ({name!r}). Rows are {', '.join(ROWS)}; `table2` stands for all of table 2.")
        chosen += [row for row in rows if row not in chosen]
    return chosen


def run_row(name: str, seed: int, output: Path, folders: list[str], flags: list[str]) -> dict[str, Any]:
    """Train one row with one seed, or go on with it, and measure it.

    Returns:
        The row's record for results.json; "network_psnr" and the like map the folders' names to their means.

    Raises:
        TrainingError: the training failed, or was stopped before its end.
        IgnnError: the result cannot be measured.
    """
    row, run = ROWS[name], output / f"{name}-seed{seed}"
    arguments = [*_flags(row, seed, flags), f"--output={run}"]
    config = parse_config(arguments)
    try:
        fit.main(arguments)
    except IgnnError as error:
        raise TrainingError(f"Training of {name} with seed {seed} failed: {error}") from error
    checkpoint = read_checkpoint(run / "last.pt")
    state = checkpoint.run
    if state is None or state.step < config.steps:
        steps = 0 if state is None else state.step
        raise TrainingError(f"{name} with seed {seed} stopped at step {steps}; the same command goes on.")
    upscale, scale = load_upscaler(run / "last.pt")
    methods = {"network": upscale, **({"ensemble": self_ensemble(upscale)} if row.ensemble else {})}
    record: dict[str, Any] = {"row": name, "label": row.label, "seed": seed, "scale": scale, "steps": config.steps}
    record |= {"network": checkpoint.config.to_dict(), "data_sha256": state.data_sha256, "versions": state.versions}
    for summary in summarise(evaluate(methods, folders, scale)):
        for metric in ("psnr", "ssim"):
            record.setdefault(f"{summary['method']}_{metric}", {})[summary["dataset"]] = summary[metric]
    return record


def _flags(row: Row, seed: int, flags: list[str]) -> list[str]:
    network = [f"--network={key}={json.dumps(value)}" for key, value in row.network.items()]
    return [*flags, *network, f"--scale={row.scale}", f"--seed={seed}"]


def _same_run(name: str, seed: int, flags: list[str], records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the record that this row would repeat: the tables share their full network."""
    row = ROWS[name]
    network = parse_config(_flags(row, seed, flags)).net.to_dict()
    for record in records:
        if (record["network"], record["seed"]) == (network, seed) and ("ensemble_psnr" in record or not row.ensemble):
            return {**record, "row": name, "label": row.label}
    return None


def markdown_table(records: list[dict[str, Any]]) -> str:
    """Return rows by their labels; each cell is the mean PSNR over the seeds, with the lowest and the highest."""
    datasets = list(dict.fromkeys(name for record in records for name in record["network_psnr"]))
    lines = [["row", "scale", "seeds", *(f"{name} PSNR (dB)" for name in datasets)], ["---"] * (3 + len(datasets))]
    for name in dict.fromkeys(record["row"] for record in records):
        group = [record for record in records if record["row"] == name]
        for suffix, method in (("", "network"), ("+", "ensemble")):
            if f"{method}_psnr" in group[0]:
                values = [[record[f"{method}_psnr"][dataset] for record in group] for dataset in datasets]
                cells = [_spread(value) for value in values]
                lines.append([group[0]["label"] + suffix, f"x{group[0]['scale']}", str(len(group)), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ignn ablation",
        description=__doc__,
        epilog="Rows: " + "; ".join(f"{name} ({row.label})" for name, row in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="+", metavar="ROW", help="names of rows or tables")
    parser.add_argument("--output", default="runs/ablation", help="folder for runs and results")
    parser.add_argument(
        "--evaluate", action="append", required=True, metavar="FOLDER", help="HR images; may be repeated"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="train each row with each of them")
    argv = sys.argv[1:] if argv is None else argv
    split = argv.index("--") if "--" in argv else len(argv)
    arguments = parser.parse_args(argv[:split])
    arguments.flags = argv[split + 1 :]
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run rows as the flags say; write results.json and results.md after each."""
    arguments = _parse(argv)
    output = Path(arguments.output)
    results = output / "results.json"
    names = choose(arguments.rows)
    make_folder(output)
    content = _read_results(results, arguments.flags)
    done = {(record["row"], record["seed"]) for record in content["records"]}
    # Seed by seed: a table of all rows is there early.
    for seed, name in ((seed, name) for seed in arguments.seeds for name in names):
        if (name, seed) not in done:
            record = _same_run(name, seed, arguments.flags, content["records"])
            record = record or run_row(name, seed, output, arguments.evaluate, arguments.flags)
            content["records"].append(record)
            content["records"].sort(key=lambda record: (list(ROWS).index(record["row"]), record["seed"]))
            write_text(results, json.dumps(content, indent=1) + "\n")
            write_text(output / "results.md", markdown_table(content["records"]))
    sys.stdout.write(markdown_table(content["records"]))
    return 0


def _read_results(path: Path, flags: list[str]) -> dict[str, Any]:
    """Return what earlier commands with these flags wrote, or an empty record."""
    if not path.exists():
        return {"flags": flags, "records": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # the second: not JSON, or not UTF-8
        raise UsageError(f"{path} cannot be read ({error}). Take it away, or use another --output.") from error
    if content["flags"] != flags:
        raise UsageError(f"{path} was made with other flags ({' '.join(content['flags'])}). Use another --output.")
    return content


if __name__ == "__main__":
    sys.exit(run_command("python -m train.ablation", main))

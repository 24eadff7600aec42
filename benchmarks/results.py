"""Results: one JSON file a benchmark, with all that they were measured on; written row by row, so that runs resume."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.commands.machine import machine
from runtime.errors import IgnnError

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "results"

_LIBRARIES = ("numpy", "pillow", "onnxruntime", "onnx", "torch", "openvino", "ncnn", "opencv-python-headless")
_MACHINE = ("cpu", "cores", "threads", "memory_bytes", "system", "python", "libraries")
"""What results must have in common to stand in one table; a page names each section's own."""
_PAGES = ("__main__", "report", "plots", "cards")
_MEASURED = ("train", "export", "runtime", "benchmarks/*.py", *(f":!benchmarks/{name}.py" for name in _PAGES))
"""What a measurement depends on: a commit that leaves these alone does not make another environment."""


class ResultsError(IgnnError):
    """A results file cannot be read, continued or compared; the message says what to do."""


def environment(threads: int) -> dict[str, Any]:
    """Return what rows must have in common to be compared."""
    return {
        **machine(_LIBRARIES),
        "threads": threads,
        "commit": _commit(),
    }


def _commit() -> str:
    """Return the last commit that touched what is measured; "-modified" if files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments, "--", *_MEASURED]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = git("log", "-1", "--format=%H") or "unknown"
    return commit + ("-modified" if git("status", "--porcelain", "--untracked-files=no") else "")


class Results:
    """The rows of one benchmark in one file.

    Args:
        path: the file; made by the first `add`.
        name: the benchmark.
        measured_on: `environment()`.
        fresh: forget the rows that the file holds.

    Raises:
        ResultsError: the file holds rows of another environment, or is damaged.
    """

    def __init__(self, path: Path, name: str, measured_on: dict[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.document: dict[str, Any] = {"benchmark": name, "environment": measured_on, "rows": [], "targets": []}
        if fresh or not path.exists():
            return
        earlier = read(path)
        differing = _differences(earlier["environment"], measured_on)
        if differing:
            raise ResultsError(
                f"{path} holds rows of another environment ({'; '.join(differing)}): they cannot be compared with "
                "new ones. Measure all anew with --fresh, or write elsewhere with --output FOLDER."
            )
        self.document = earlier

    def __contains__(self, config: dict[str, Any]) -> bool:
        return any(row["key"] == key_of(config) for row in self.document["rows"])

    def add(self, config: dict[str, Any], measurements: dict[str, Any], load: tuple[float, ...]) -> None:
        """Write one more row; `load` is the load average before it was measured."""
        row = {
            "key": key_of(config),
            "config": config,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_average": [round(value, 2) for value in load],
            "measurements": measurements,
        }
        self.document["rows"].append(row)
        self.write()

    def finish(
        self, configs: list[dict[str, Any]], targets: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
    ) -> None:
        """Drop rows of other configurations (an earlier model file's), order the rest as given, add the targets."""
        rows = {row["key"]: row for row in self.document["rows"]}
        self.document["rows"] = [rows[key_of(config)] for config in configs if key_of(config) in rows]
        self.document["targets"] = targets(self.document["rows"])
        self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(_rounded(self.document), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


def key_of(config: dict[str, Any]) -> str:
    """Return the hash that a configuration's row is known by."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Any]:
    """Read a results file and check its shape.

    Raises:
        ResultsError: it is not one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        check(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path} is not a results file ({type(error).__name__}: {error}). Delete it and measure again."
        ) from error
    return document


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Read every results file of a folder, by the benchmark's name.

    Raises:
        ResultsError: there is none, or one is damaged.
    """
    documents = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    if not documents:
        raise ResultsError(f"{folder} holds no results. Measure first: python -m benchmarks all")
    return documents


def machine_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the machine and the libraries: what results must have in common to stand in one table."""
    return {key: document["environment"][key] for key in _MACHINE}


def demand_one_machine(documents: dict[str, dict[str, Any]]) -> None:
    """Check that documents, by the benchmark's name, can stand in one table.

    Raises:
        ResultsError: they were not measured on the same machine and libraries.
    """
    first = next(iter(documents))
    expected = machine_of(documents[first])
    for name, document in documents.items():
        differing = [key for key, value in machine_of(document).items() if value != expected[key]]
        if differing:
            raise ResultsError(
                f"{name}.json and {first}.json were not measured on the same machine and libraries "
                f"({', '.join(differing)} differ): they cannot stand in one table. Measure one of them again: "
                f"python -m benchmarks {name} --fresh"
            )


def check(document: dict[str, Any]) -> None:
    """Check the shape of a results document; its times may be anything that a time can be.

    Raises:
        KeyError, TypeError, ValueError: something is missing or cannot be true.
    """
    missing = {"cpu", "cores", "threads", "libraries", "commit", "python"} - set(document["environment"])
    if missing:
        raise ValueError(f"environment lacks {sorted(missing)}")
    for row in document["rows"]:
        if row["key"] != key_of(row["config"]):
            raise ValueError(f"row {row['key']} does not have the key of its configuration {key_of(row['config'])}")
        if len(row["load_average"]) != 3:
            raise ValueError(f"row {row['key']} lacks the load average")
        datetime.fromisoformat(row["measured_at"])
        measurements = row["measurements"]
        if not measurements["alternatives"]:
            raise ValueError(f"row {row['key']} has no measurement")
        for name, found in measurements["alternatives"].items():
            for number in (found["wall_s"]["p50"], found["wall_s"]["p99"], found["peak_bytes"], found["rounds"]):
                if not (math.isfinite(number) and number > 0):
                    raise ValueError(f"row {row['key']}, {name}: {number} is not a time, a size or a count")
        for name, ratio in measurements["ratios"].items():
            if name not in measurements["alternatives"] or not ratio["wall"] > 0:
                raise ValueError(f"row {row['key']}: ratio {name} is of nothing measured")
    keys = [row["key"] for row in document["rows"]]
    if len(set(keys)) != len(keys):
        raise ValueError("two rows have one key")
    for target in document["targets"]:
        if target["met"] != (target["measured"] <= target["limit"]):
            raise ValueError(f"the target of {target['figure']!r} contradicts its own numbers")


def target(figure: str, measured: float, limit: float, unit: str = "x") -> dict[str, Any]:
    """Return one figure beside its target: `measured` should be at most `limit`."""
    return {
        "figure": figure,
        "measured": float(measured),
        "limit": float(limit),
        "unit": unit,
        "met": measured <= limit,
    }


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    def flat(facts: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in facts.items() if key != "libraries"} | facts["libraries"]

    a, b = flat(earlier), flat(now)
    return [f"{key}: {a.get(key)}, now {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def _rounded(value: Any) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """Round to six significant digits: more are noise, and files are read by people."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load(name: str) -> Any:  # noqa: ANN401 (a module with cases, measure, targets, table)
    """Return the benchmark `benchmarks.<name>`."""
    return importlib.import_module(f"benchmarks.{name}")

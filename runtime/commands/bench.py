"""`ignn bench`: measure every backend that is installed, on a photograph of the user's.

Each lives in a process of its own (`measure`), and they take turns. Then each enlarges once more, and what it gives is
compared with ONNX Runtime on the CPU, which computes in float32 whatever the file's precision is.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_path
from ..backends.discovery import installed_ways
from ..backends.gpus import list_gpus
from ..clone import install_command
from ..errors import BackendUnavailableError, IgnnError, UsageError
from ..pictures.psnr import psnr_db
from ..pictures.read import read_still
from ..super_resolver import SuperResolver
from .compare import entry
from .machine import machine
from .measure import NotRunError, RefusedError, Timings, Worker, alternate

LIBRARIES = ("ignn", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "cuda-bindings", "pycuda")

CROP, WITHIN_DB = 512, 50.0
"""Largest side that is measured, in pixels; least PSNR of a way that is recommended."""

BUDGET_SECONDS, MIN_ROUNDS, MAX_ROUNDS = 60, 3, 9
"""No round begins after so long; rounds at least and at most."""

REFERENCE = {"providers": ["cpu"]}
"""Arguments of `SuperResolver` that all others are compared with."""


@dataclass(frozen=True)
class Case:
    """One way to run one model: its label, the arguments of `SuperResolver`, and those of `ignn upscale`."""

    label: str
    options: dict[str, Any]
    flags: tuple[str, ...]


def enlarge(options: dict[str, Any], picture: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
    """Return a call that enlarges the picture, for a `Worker`."""
    resolver = SuperResolver(**options)
    return lambda: resolver(picture)


def describe(options: dict[str, Any], picture: NDArray[np.uint8]) -> Callable[[], tuple[str, NDArray[np.float32]]]:
    """Return a call that gives the description and the network's own result, for a `Worker`."""
    resolver = SuperResolver(**options)
    values = picture.astype(np.float32)
    return lambda: (resolver.description, resolver.super_resolve(values))


def main(argv: list[str]) -> int:
    """Run `ignn bench`; return the exit code."""
    arguments = _parser().parse_args(argv)
    crop = _crop(arguments.crop)
    if math.isnan(arguments.within):
        raise UsageError("Invalid --within (nan). A number of dB is expected, such as 50.")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise UsageError(f"Folder {arguments.json.parent} does not exist. Create it: mkdir -p {arguments.json.parent}")
    whole = entry("", read_still(arguments.picture)).rgb
    picture = _middle(whole, crop)
    cases = _cases(arguments)
    size = " x ".join(map(str, picture.shape[1::-1]))
    if picture.shape != whole.shape:
        size += f" (the middle of {whole.shape[1]} x {whole.shape[0]}; more with --crop)"
    facts = machine(LIBRARIES) | {"load_average": _load()}
    sys.stdout.write(f"{arguments.picture}, {size} pixels; {facts['cpu']}, {facts['cores']} cores\n")
    sys.stdout.flush()
    sys.stderr.write(f"ignn bench: {len(cases)} to measure; the first run of TensorRT builds its engine\n")
    rows = measure_all(cases, picture)
    sys.stdout.write(table(rows))
    fastest = _fastest(rows, arguments.within)
    command = None if fastest is None else _command(arguments.picture, fastest, cases)
    if arguments.json is not None:
        document = {
            "environment": facts | {"gpus": [vars(gpu) for gpu in list_gpus()]},
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "picture": {"file": str(arguments.picture), "width": whole.shape[1], "height": whole.shape[0]}
            | {"measured_width": picture.shape[1], "measured_height": picture.shape[0]},
            "rows": rows,
            "within_db": arguments.within,
            "fastest": None if fastest is None else fastest["name"],
            "command": command,
        }
        with atomic_path(arguments.json) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if fastest is None:
        raise IgnnError(f"{rows[0]['name']} failed, with which all are compared. {rows[0]['failed']}")
    sys.stdout.write(f"\nFastest within {arguments.within:g} dB of float32: {fastest['name']}\n  {command}\n")
    return 0


def measure_all(cases: list[Case], picture: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Measure all cases; the first is what the others are compared with.

    Returns:
        a dictionary each: `name`, and `failed`, the reason, or `seconds` (median), `seconds_least`, `seconds_most`,
        `rounds`, `peak_bytes`, `description`, `psnr_db` (None: equal) and `largest_difference` (of 255).
    """
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for case in cases:
            try:
                workers[case.label] = stack.enter_context(
                    Worker(enlarge, {"options": case.options, "picture": picture})
                )
            except (NotRunError, RuntimeError) as error:
                failed[case.label] = str(error)
        timings = alternate(
            workers, budget_s=BUDGET_SECONDS, min_rounds=MIN_ROUNDS, max_rounds=MAX_ROUNDS, refused=failed
        )
    rows: list[dict[str, Any]] = []
    reference: NDArray[np.float32] | None = None
    for case in cases:
        row: dict[str, Any] = {"name": case.label}
        if case.label not in failed and (reference is not None or case is cases[0]):
            try:
                with Worker(describe, {"options": case.options, "picture": picture}) as worker:
                    worker.run()
                    row["description"], sr = worker.output()
                reference = sr if reference is None else reference
                row |= _times(timings, case.label) | _distance(sr, reference)
            except (NotRunError, RuntimeError) as error:
                failed[case.label] = str(error)
        if case.label in failed or "seconds" not in row:
            reason = failed.get(case.label, f"{cases[0].label} failed, with which it would be compared.")
            row = {"name": case.label, "failed": _short(reason)}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as text for people."""
    cells = [("", "seconds", "least to most", "memory", "PSNR", "largest difference")]
    for row in rows:
        if "failed" not in row:
            cells.append(
                (
                    row["name"],
                    f"{row['seconds']:.3g}",
                    f"{row['seconds_least']:.3g} to {row['seconds_most']:.3g}",
                    f"{row['peak_bytes'] / 1e6:,.0f} MB",
                    "equal" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB",
                    f"{row['largest_difference']:.2g} of 255",
                )
            )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *values in cells:
        right = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *right]))
    lines += [f"{row['name']}: not measured. {row['failed']}" for row in rows if "failed" in row]
    return "\n".join(lines) + "\n"


def _cases(arguments: argparse.Namespace) -> list[Case]:
    ways = installed_ways()
    reference = next((way for way in ways if way.options == REFERENCE), None)
    if reference is None:
        raise BackendUnavailableError(
            f"ONNX Runtime is not installed, with whose result all are compared. Install it: {install_command('cpu')}"
        )
    foreign = {"scale": arguments.scale, "value_range": arguments.value_range}
    foreign_flags = [] if arguments.scale is None else ["--scale", str(arguments.scale)]
    foreign_flags += [] if arguments.value_range is None else ["--value-range", arguments.value_range]
    names: list[str | None] = arguments.model or [None]
    _check_models(names, foreign)
    cases = []
    for name in names:
        model_flags = [] if name is None else ["--model", name]
        for way in sorted(ways, key=lambda way: way is not reference):
            label = way.name if len(names) == 1 else f"{name}: {way.name}"
            options = {"model": name} | foreign | way.options
            cases.append(Case(label, options, (*model_flags, *foreign_flags, *way.flags)))
    return cases


def _check_models(names: list[str | None], foreign: dict[str, Any]) -> None:
    """Open each model before the work, and compare their scales."""
    scales = {}
    for name in names:
        if name is not None and Path(name).suffix == ".engine":
            raise UsageError(f"Invalid --model ({name}): an engine runs in TensorRT alone. Name its ONNX file.")
        with SuperResolver(name, providers=["cpu"], **foreign) as resolver:
            scales[name] = resolver.scale
    if len(set(scales.values())) > 1:
        listed = ", ".join(f"{name} x{scale}" for name, scale in scales.items())
        raise UsageError(f"Models of one scale can be compared; these are {listed}. Give those of one scale.")
    if len(scales) < len(names):
        raise UsageError("A --model was named twice. Name each once.")


def _times(timings: Timings, label: str) -> dict[str, Any]:
    summary = timings.summary()[label]
    wall = summary["wall_s"]
    return {
        "seconds": wall["p50"],
        "seconds_least": wall["min"],
        "seconds_most": wall["max"],
        "rounds": summary["rounds"],
        "peak_bytes": summary["peak_bytes"],
    }


def _distance(sr: NDArray[np.float32], reference: NDArray[np.float32]) -> dict[str, Any]:
    psnr = psnr_db(sr, reference)
    if math.isnan(psnr):
        raise RefusedError("It gave NaN or infinite values.")
    return {
        "psnr_db": None if math.isinf(psnr) else psnr,
        "largest_difference": float(np.abs(sr.astype(np.float64) - reference).max()),
    }


def _fastest(rows: list[dict[str, Any]], within_db: float) -> dict[str, Any] | None:
    """Return the fastest row whose result is near enough; None if the reference failed, which is equal to itself."""
    near = [row for row in rows if "failed" not in row and (row["psnr_db"] is None or row["psnr_db"] >= within_db)]
    return min(near, key=lambda row: row["seconds"], default=None)


def _short(reason: str) -> str:
    """Return a reason without the traceback of a defect."""
    if "Traceback (most recent" not in reason:
        return reason
    return f"This is a defect of ignn ({reason.strip().splitlines()[-1]}). Please report it."


def _command(picture: Path, row: dict[str, Any], cases: list[Case]) -> str:
    case = next(case for case in cases if case.label == row["name"])
    return shlex.join(["ignn", "upscale", str(picture), "-o", f"{picture.stem}_large.png", *case.flags])


def _crop(text: str) -> int | None:
    if text == "none":
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1 << 20:
        return int(text)
    raise UsageError(f"Invalid --crop ({text!r}). Supported values are none and whole numbers from 1.")


def _middle(rgb: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    if side is None:
        return rgb
    top, left = (max(0, (length - side) // 2) for length in rgb.shape[:2])
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ignn bench", description="Measure every backend that is installed, on a photograph of yours."
    )
    parser.add_argument("picture", type=Path, metavar="PHOTO", help="a photograph to enlarge")
    parser.add_argument(
        "--model", action="append", metavar="M", help="as of `ignn upscale`; may be repeated (default: edsr-s-x2)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all as JSON")
    parser.add_argument(
        "--within", type=float, default=WITHIN_DB, metavar="DB", help="least PSNR of the fastest (default %(default)g)"
    )
    parser.add_argument(
        "--crop", default=str(CROP), metavar="N", help="largest side that is measured, or none (default %(default)s)"
    )
    parser.add_argument("--scale", type=int, help="scale of a model that `ignn export` did not make")
    parser.add_argument("--value-range", choices=["0..255", "0..1"], help="value range of such a model")
    return parser

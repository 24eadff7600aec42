"""The import and the first picture of a fresh process, against ONNX Runtime alone.

Each sample is a process of its own; CPU time is that of the process. "onnxruntime alone" imports NumPy and onnxruntime,
opens the same file with default options and runs it once on the same pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import subjects
from benchmarks.results import REPOSITORY, target
from runtime.commands.measure import compare

_IMPORT = "from runtime import SuperResolver"
_UPSCALE = "import sys; from runtime.cli import main; sys.exit(main())"
_ALONE = """
import os, sys
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as ours has it
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[3])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {"lr": numpy.load(sys.argv[2])})
"""


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    name, sizes = ("tiny", [(32, 32)]) if quick else ("ignn-s", [(64, 64), (150, 225)])
    model = {"model": name, "model_sha256": subjects.sha256(subjects.onnx_file(name)), "threads": threads}
    budget_s = 1 if quick else 60
    return [{"what": "import", "budget_s": budget_s}] + [
        {"what": "upscale", "height": height, "width": width, **model, "budget_s": budget_s} for height, width in sizes
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration."""
    if config["what"] == "import":
        programs = {"python -c pass": "pass", "import numpy": "import numpy", _IMPORT: _IMPORT}
        alternatives = {name: (process, {"arguments": ["-c", program]}) for name, program in programs.items()}
        return compare(alternatives, against="python -c pass", budget_s=config["budget_s"], min_rounds=5)
    from PIL import Image

    model = str(subjects.onnx_file(config["model"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = subjects.photograph(config["height"], config["width"])
        Image.fromarray(image).save(folder / "photo.png")
        np.save(folder / "photo.npy", subjects.lr_input(config["height"], config["width"]))
        upscale = ["upscale", str(folder / "photo.png"), "-o", str(folder / "large.png"), "--model", model]
        threads = str(config["threads"])
        alternatives = {
            "ignn upscale": (process, {"arguments": ["-c", _UPSCALE, *upscale, "--threads", threads]}),
            "onnxruntime alone": (
                process,
                {"arguments": ["-c", _ALONE, model, str(folder / "photo.npy"), threads]},
            ),
        }
        return compare(alternatives, against="onnxruntime alone", budget_s=config["budget_s"], min_rounds=5)


def process(arguments: list[str]) -> Callable[[], None]:
    """Return a call that starts one fresh interpreter with these arguments and waits for its end."""

    def run() -> None:
        done = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"python {arguments[0]} ... ended with {done.returncode}: {done.stderr.strip()[-500:]}")

    return run


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one target for the import and one for each picture, with what was measured."""
    found = []
    for row in rows:
        config, measurements = row["config"], row["measurements"]
        if config["what"] == "import":
            seconds = measurements["alternatives"][_IMPORT]["cpu_s"]["p50"]
            found.append(target(f"`{_IMPORT}`: CPU time", seconds, 0.25, "s"))
        else:
            what = f"`ignn upscale`, {config['model']}, {config['width']} x {config['height']}"
            ratio = measurements["ratios"]["ignn upscale"]["wall"]
            found.append(target(f"{what}: time over onnxruntime alone", ratio, 1.3))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    return [
        {
            "what": row["config"]["what"],
            "LR": f"{row['config']['height']} x {row['config']['width']}" if "height" in row["config"] else "",
            "process": name,
            "time, s": found["wall_s"]["p50"],
            "CPU time, s": found["cpu_s"]["p50"],
            "ratio": ratio["wall"],
            "of CPU time": ratio["cpu"],
        }
        for row in rows
        for name, found in row["measurements"]["alternatives"].items()
        for ratio in [row["measurements"]["ratios"].get(name, {"wall": 1.0, "cpu": 1.0})]
    ]

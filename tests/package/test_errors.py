"""Every command says an error in one format, `NAME: error: MESSAGE`, and exits with 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = "/nowhere/absent"

COMMANDS = {
    "ignn upscale": [ABSENT, "-o", "sr.png"],
    "ignn compare": [ABSENT, ABSENT, "-o", "sheet.png"],
    "ignn train": ["--data", ABSENT, "--output", "run", "--no-tensorboard"],
    "ignn evaluate": [ABSENT, "--data", ABSENT],
    "ignn ablation": ["table7", "--evaluate", ABSENT, "--output", "run"],
    "ignn graphagg-star": [ABSENT, "--model", ABSENT, "-o", "star.png"],
    "ignn feature-maps": [ABSENT, "--model", ABSENT, "-o", "maps.png"],
    "ignn neighbors": [ABSENT, "--at", "1,1", "--model", ABSENT, "-o", "sheet.png"],
    "ignn photographs": [ABSENT],
    "ignn scoreboard": ["--data", ABSENT, "--run", "run"],
    "ignn export": ["--checkpoint", ABSENT, "--output", "m.onnx"],
    "ignn build": [ABSENT, "-o", "m.engine"],
    "ignn verify": [ABSENT],
    "ignn nonsense": [],
    "python -m train.fit": ["--data", ABSENT, "--output", "run", "--no-tensorboard"],
    "python -m train.evaluate": [ABSENT, "--data", ABSENT],
    "python -m train.ablation": ["table7", "--evaluate", ABSENT, "--output", "run"],
    "python -m train.neighbor_sheet": [ABSENT, "--at", "1,1", "--model", ABSENT, "-o", "sheet.png"],
    "python -m train.photographs": [ABSENT],
    "python -m train.scoreboard": ["--data", ABSENT, "--run", "run"],
    "python -m export.bundle": ["--checkpoint", ABSENT, "--name", "x", "--data", ABSENT],
    "python -m export.to_engine": [ABSENT, "-o", "m.engine"],
    "python -m export.verify": [ABSENT],
    "python -m benchmarks": ["report", "--output", ABSENT],
    "python export/to_onnx.py": ["--checkpoint", ABSENT, "--output", "m.onnx"],
}
"""What a user types, and arguments that are wrong."""


@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_is_one_message(name: str, tmp_path: Path) -> None:
    first, *rest = name.split()
    if first == "ignn":
        command = [sys.executable, "-m", "runtime.cli", *rest]
    elif rest[0] == "-m":
        command = [sys.executable, *rest]
    else:
        command = [sys.executable, str(REPOSITORY / rest[0])]
        name = "ignn export"  # the script is that command
    completed = subprocess.run(
        [*command, *COMMANDS[" ".join([first, *rest])]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1, completed.stderr
    assert completed.stderr.startswith(f"{name}: error: "), completed.stderr
    assert "Traceback" not in completed.stderr
    assert not list(tmp_path.rglob("*.ignn-part"))

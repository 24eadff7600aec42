"""Every command says an error in one format, `NAME: error: MESSAGE`, and exits with 1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from runtime import cli  # noqa: E402 - what it needs is asked for above

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = "/nowhere/absent"

COMMANDS = {
    "ignn upscale": [ABSENT, "-o", "sr.png"],
    "ignn compare": [ABSENT, ABSENT, "-o", "sheet.png"],
    "ignn ui": ["--port", "65536"],
    "ignn serve": ["--model", f"{ABSENT}.onnx", "--only-repository", "repository"],
    "ignn probe": ["http://127.0.0.1:1"],
    "ignn batch": [ABSENT, "out"],
    "ignn bench": [ABSENT],
    "ignn demo": ["--port", "65536"],
    "ignn train": ["--data", ABSENT, "--output", "run", "--no-tensorboard"],
    "ignn curve": [ABSENT, "-o", "curve.svg"],
    "ignn evaluate": [ABSENT, "--data", ABSENT],
    "ignn ablation": ["table7", "--evaluate", ABSENT, "--output", "run"],
    "ignn graphagg-star": [ABSENT, "--model", ABSENT, "-o", "star.png"],
    "ignn feature-maps": [ABSENT, "--model", ABSENT, "-o", "maps.png"],
    "ignn graph-report": [ABSENT],
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
    "python -m train.graph_report": [ABSENT],
    "python -m benchmarks": ["report", "--output", ABSENT],
    "python -m benchmarks.browser": ["--output", "."],
    "python -m benchmarks.gpu.occupancy": ["sm_10"],
    "python export/to_onnx.py": ["--checkpoint", ABSENT, "--output", "m.onnx"],
}
"""What a user types, and arguments that are wrong."""

GPU_COMMANDS = {
    "python -m benchmarks.gpu.correctness": [],
    "python -m benchmarks.gpu.kernels": [],
    "python -m benchmarks.gpu.networks": [],
    "python -m benchmarks.gpu.rtx_engine": [ABSENT],
}
"""What a user types, and what is wrong without a GPU."""


@pytest.mark.parametrize("name", [*COMMANDS, *GPU_COMMANDS])
def test_an_error_is_one_message(name: str, tmp_path: Path) -> None:
    if name in GPU_COMMANDS and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    first, *rest = name.split()
    if first == "ignn":
        command = [sys.executable, "-m", "runtime.cli", *rest]
    elif rest[0] == "-m":
        command = [sys.executable, *rest]
    else:
        command = [sys.executable, str(REPOSITORY / rest[0])]
        name = "ignn export"  # the script is that command
    completed = subprocess.run(
        [*command, *(COMMANDS | GPU_COMMANDS)[" ".join([first, *rest])]],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1, completed.stderr
    assert completed.stderr.startswith(f"{name}: error: "), completed.stderr
    assert "Traceback" not in completed.stderr
    assert "defect" not in completed.stderr
    assert not list(tmp_path.rglob("*.ignn-part"))


@pytest.mark.parametrize("name", ["models", "doctor"])
def test_a_command_without_arguments_takes_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([name, "nonsense"])
    assert f"ignn {name}: error: unrecognized arguments: nonsense" in capsys.readouterr().err

"""`ignn doctor` says what is there and what to type, whatever is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from runtime.backends.gpus import Gpu, list_gpus
from runtime.cli import main
from runtime.clone import install_command
from runtime.commands import doctor
from runtime.errors import ModelChecksumError


def test_it_ends_well_and_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for name in ("GPU", "nvcc", "TensorRT headers", "TensorRT:", "TensorRT-RTX:", "ONNX Runtime", "Plugin", "odel"):
        assert name in output


def test_an_empty_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_models() -> list:
        raise ModelChecksumError("Bundled model x is not the published one.")

    monkeypatch.setitem(sys.modules, "runtime.backends.onnx_runtime", None)
    monkeypatch.setattr(doctor, "bundled_models", no_models)
    monkeypatch.setattr(doctor, "_output", lambda *_, **__: None)
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    monkeypatch.setattr(doctor, "_headers", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IGNN_PLUGIN", str(tmp_path / "none.so"))
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines if not line.startswith(" ")].count("ok") == 2  # Python and the clone
    text = "\n".join(lines)
    for command in (
        *(install_command(extra) for extra in ("cpu", "gpu", *doctor.EXTRAS, *doctor.CLONE_EXTRAS)),
        "pip install 'tensorrt>=10.15,<12'",
        "cmake -S plugins -B build",
        "pip install polygraphy",
        f"There is no plugin library {tmp_path / 'none.so'}",
        "is not the published one",
    ):
        assert command in text


def test_every_extra_is_spoken_of() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    spoken_of = {**doctor.EXTRAS, **doctor.CLONE_EXTRAS}
    assert set(spoken_of) | {"cpu", "gpu"} == set(extras)
    for extra, (packages, _) in spoken_of.items():
        required = " ".join(extras[extra]) + (" pyvips-binary" if extra == "stream" else "")
        for package in packages:
            assert package in required or extra == "test-ui", (extra, package)


def test_hints_ask_for_the_command_that_is_true_here() -> None:
    """How an extra is installed depends on how the package was: runtime/clone.py knows."""
    root = Path(__file__).resolve().parents[2]
    for folder in ("runtime", "plugins", "train", "export", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            if path.name != "clone.py":
                assert not re.search(r"pip install (-e|-U|--force|'?ignn)", path.read_text(encoding="utf-8")), path


def test_outside_a_clone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_clone", lambda: None)
    assert doctor.main([]) == 0
    output = capsys.readouterr().out
    assert "--  Clone of the project: not found" in output
    assert "Extra train" not in output


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = subprocess.CompletedProcess([], 0, "NVIDIA RTX A6000, 8.6, 570.1\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert list_gpus() == [Gpu("NVIDIA RTX A6000", "8.6", "570.1")]
    answer.stdout = "NVIDIA-SMI has failed\n"
    assert list_gpus() == []

"""`ignn bench`: what is installed is measured, compared and listed, and what fails does not end it."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import ModelFactory

from runtime import SuperResolver
from runtime.backends import discovery
from runtime.backends.discovery import Way, installed_ways
from runtime.cli import main
from runtime.commands import bench
from runtime.commands.upscale import parser

CPU = Way("ONNX Runtime, cpu", {"providers": ["cpu"]}, ("--provider", "cpu"))
ONE_THREAD = Way("one thread", {"providers": ["cpu"], "threads": 1}, ("--provider", "cpu", "--threads", "1"))
ABSENT = Way("TensorRT", {"backend": "tensorrt"}, ("--backend", "tensorrt"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BUDGET_SECONDS", 0)
    monkeypatch.setattr(bench, "MIN_ROUNDS", 1)
    monkeypatch.setattr(bench, "installed_ways", lambda: [CPU])


@pytest.fixture
def photo(tmp_path: Path, photograph: np.ndarray) -> str:
    Image.fromarray(photograph).save(tmp_path / "a photo.png")
    return str(tmp_path / "a photo.png")


def test_a_table_a_json_and_the_command(
    photo: str, x2_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "installed_ways", lambda: [ABSENT, ONE_THREAD, CPU])
    report = tmp_path / "bench.json"
    assert main(["bench", photo, "--model", str(x2_model), "--crop", "40", "--json", str(report)]) == 0
    output = capsys.readouterr().out
    first, _, reference, second, absent, _, fastest, command = output.splitlines()
    assert "40 x 40 (the middle of 225 x 150; more with --crop) pixels" in first
    assert reference.startswith("ONNX Runtime, cpu ")
    assert " equal " in reference
    assert second.startswith("one thread ")
    assert absent.startswith("TensorRT: not measured. TensorRT cannot be imported")
    assert fastest.startswith("Fastest within 50 dB of float32: ")
    words = shlex.split(command)
    assert words[:2] == ["ignn", "upscale"]
    chosen = parser().parse_args(words[2:])
    assert (chosen.inputs, chosen.model, chosen.provider) == ([photo], str(x2_model), ["cpu"])

    document = json.loads(report.read_text())
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["ONNX Runtime, cpu", "TensorRT", "one thread"]
    assert rows["one thread"]["psnr_db"] is None or rows["one thread"]["psnr_db"] > 100
    assert 0 < rows["one thread"]["seconds_least"] <= rows["one thread"]["seconds"]
    assert 30e6 < rows["one thread"]["peak_bytes"] < 500e6
    assert set(rows["TensorRT"]) == {"name", "failed"}
    assert document["picture"]["measured_width"] == 40
    assert document["environment"]["cores"] > 0
    assert document["command"] == command.strip()


def test_the_fastest_is_near_enough(
    photo: str, model_file: ModelFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(model_file(2)), str(model_file(2, {"noise": 0.0}))]
    report = tmp_path / "bench.json"
    command = ["bench", photo, *(word for model in models for word in ("--model", model)), "--json", str(report)]
    assert main([*command, "--crop", "none", "--within", "1000"]) == 0
    assert f"Fastest within 1000 dB of float32: {models[0]}: ONNX Runtime, cpu" in capsys.readouterr().out
    document = json.loads(report.read_text())
    near, far = document["rows"]
    assert near["psnr_db"] is None
    assert near["largest_difference"] == 0
    assert 0 < far["psnr_db"] < 60
    assert 0 < far["largest_difference"] < 1000
    assert document["picture"]["measured_width"] == 225


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png"),
        (["{photo}", "--crop", "0"], "Invalid --crop ('0'). Supported values are none and whole numbers from 1."),
        (["{photo}", "--within", "nan"], "Invalid --within (nan)"),
        (["{photo}", "--json", "no/folder/b.json"], "Folder no/folder does not exist. Create it: mkdir -p no/folder"),
        (["{photo}", "--model", "none.onnx"], "There is no model file none.onnx"),
        (["{photo}", "--model", "m.engine"], "an engine runs in TensorRT alone. Name its ONNX file."),
        (["{photo}", "--model", "{x2}", "--model", "{x3}"], "Models of one scale can be compared; these are "),
        (["{photo}", "--model", "{x2}", "--model", "{x2}"], "A --model was named twice"),
        (["{photo}", "--model", "{x2}", "--scale", "2"], "says its own scale"),
    ],
)
def test_bad_input(
    photo: str, model_file: ModelFactory, capsys: pytest.CaptureFixture[str], monkeypatch, arguments, message: str
) -> None:
    monkeypatch.setattr(bench, "measure_all", lambda *_: pytest.fail("it began to measure"))
    files = {"photo": photo, "x2": model_file(2), "x3": model_file(3)}
    assert main(["bench", *(word.format(**files) for word in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_reference_that_fails(photo: str, x2_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """As where memory runs out in its process."""
    monkeypatch.setattr(bench, "installed_ways", lambda: [CPU, ONE_THREAD])
    monkeypatch.setattr(
        bench, "measure_all", lambda cases, _: [{"name": case.label, "failed": "It ended."} for case in cases]
    )
    assert main(["bench", photo, "--model", str(x2_model)]) == 1
    output = capsys.readouterr()
    assert "one thread: not measured. It ended." in output.out
    assert "ONNX Runtime, cpu failed, with which all are compared. It ended." in output.err


def test_without_onnx_runtime(photo: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(bench, "installed_ways", list)
    assert main(["bench", photo]) == 1
    assert "ONNX Runtime is not installed, with whose result all are compared." in capsys.readouterr().err


def all_ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    monkeypatch.setattr(discovery.importlib.util, "find_spec", lambda name: name)
    yield from installed_ways()


def test_every_way_is_one_that_the_class_and_the_command_take(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = list(all_ways(monkeypatch))
    assert ways[0] == CPU
    assert {"TensorRT", "TensorRT-RTX"} <= {way.name for way in ways}
    for way in ways:
        assert set(way.options) <= set(inspect.signature(SuperResolver).parameters)
        parser().parse_args(["in.png", "-o", "out.png", *way.flags])


def test_what_is_not_installed_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.importlib.util, "find_spec", lambda name: None)
    assert installed_ways() == []

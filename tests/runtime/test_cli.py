"""The command line: what it writes, and what it says of files that are not pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from small_networks import make_network

from runtime import SuperResolver, cli

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def ignn(capsys, monkeypatch, tmp_path):
    """Runs `ignn` in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_upscale_one_file_with_comparison(ignn, x2_model, sample, photograph, tmp_path):
    code, _, _ = ignn("upscale", sample, "-o", "out/large.png", "--model", x2_model, "--compare", "out/sheet.png")
    assert code == 0
    assert np.array_equal(np.asarray(Image.open("out/large.png")), SuperResolver(x2_model)(photograph))
    assert Image.open("out/sheet.png").width > 450
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["large.png", "sheet.png"]


def test_upscale_a_folder(ignn, x2_model, sample, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("b.png", "a.jpg", "c.bmp", "notes.txt"):
        if name == "notes.txt":
            (tmp_path / "in" / name).write_text("not a picture")
        else:
            Image.open(sample).save(tmp_path / "in" / name)
    code, _, error = ignn("upscale", "in", "-o", "out", "--model", x2_model)
    assert code == 0, error
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["a.jpg", "b.png", "c.bmp"]
    for path in (tmp_path / "out").glob("[!.]*"):
        assert Image.open(path).size == (450, 300)


def bad_files(folder: Path, sample: Path) -> dict[str, str]:
    """Files that are not whole pictures, with what is said of each."""
    content = sample.read_bytes()
    (folder / "empty.png").touch()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "text.png").write_text("hello")
    Image.open(sample).save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "whole.jpg").unlink()
    return {
        "missing.png": "There is no file",
        "empty.png": "is empty",
        "truncated.png": "damaged or truncated",
        "text.png": "not an image",
        "truncated.jpg": "damaged or truncated",
    }


def test_files_that_are_not_pictures(ignn, x2_model, sample, tmp_path):
    (tmp_path / "in").mkdir()
    for name, message in bad_files(tmp_path / "in", sample).items():
        code, _, error = ignn("upscale", f"in/{name}", "-o", f"out/{name}", "--model", x2_model)
        assert code == 1
        assert message in error
        assert name in error
        assert "Traceback" not in error
        assert not list((tmp_path).glob("out/*"))


def test_one_bad_file_does_not_stop_the_rest(ignn, x2_model, sample, tmp_path):
    (tmp_path / "in").mkdir()
    bad = bad_files(tmp_path / "in", sample)
    Image.open(sample).save(tmp_path / "in" / "z.png")
    code, _, error = ignn("upscale", "in", "in/missing.png", "-o", "out", "--model", x2_model)
    assert code == 1
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["z.png"]
    assert f"{len(bad)} of {len(bad) + 1} files failed" in error
    for name, message in bad.items():
        assert re.search(f"{name}.*{message}", error)
    assert "in/text.png: in/text.png" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upscale", "{sample}", "-o", "x.png", "--tile", "big"], "Supported values are auto, none"),
        (["upscale", "{sample}", "-o", "x.png", "--model", "absent.onnx"], "no model file absent.onnx"),
        (["upscale", "{sample}", "-o", "x.doc", "--model", "{model}"], "Supported values are .png"),
        (
            ["upscale", "{sample}", "-o", "x.jpg", "--model", "{model}", "--quality", "0"],
            "Supported values are 1 to 100",
        ),
        (["upscale", "{sample}", "-o", "x.png", "--model", "{model}", "--max-pixels", "100"], "--max-pixels 33750"),
        (["upscale", "{sample}", "-o", "x.png", "--model", "{model}", "--provider", "gpu"], "Supported values are cpu"),
        (["upscale", "empty", "-o", "x", "--model", "{model}"], "No pictures in empty"),
        (["compare", "{sample}", "-o", "x.png"], "two pictures"),
        (["compare", "{sample}", "{sample}", "-o", "x.png", "--zoom", "0"], "Supported values are 1 to 32"),
        (["enlarge"], "Supported values are"),
    ],
)
def test_wrong_arguments(ignn, x2_model, sample, arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, error = ignn(*(argument.format(sample=sample, model=x2_model) for argument in arguments))
    assert code != 0
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_folder_that_cannot_be_written(ignn, x2_model, sample, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = ignn("upscale", sample, "-o", "file/x.png", "--model", x2_model)
    assert code == 1
    assert "Cannot write" in error


def test_a_foreign_model_by_flags(ignn, sample, photograph):
    """Refused without scale and range, which the message asks for; then taken, and its tiles called approximate."""
    onnx.save(make_network(2), "foreign.onnx")
    command = ("upscale", sample, "-o", "out.png", "--model", "foreign.onnx")
    code, _, error = ignn(*command)
    assert code == 1
    assert "--scale 2 --value-range 0..1 (or 0..255)" in error
    assert not Path("out.png").exists()
    code, _, error = ignn(*command, "--scale", 2, "--value-range", "0..255")
    assert code == 0, error
    expected = SuperResolver("foreign.onnx", scale=2, value_range="0..255")(photograph)
    assert np.array_equal(np.asarray(Image.open("out.png")), expected)


def test_an_approximate_halo_is_told(x2_model, sample, tmp_path):
    command = [sys.executable, "-m", "runtime.cli", "upscale", sample, "-o", "x.png", "--model", x2_model]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for halo, told in (("4", True), ("8", False)):
        result = subprocess.run(
            [*map(str, command), "--tile", "40", "--halo", halo],
            capture_output=True, text=True, env=environment, cwd=tmp_path, check=True,
        )  # fmt: skip
        assert ("tiles are approximate: halo 4, exact from 8 on" in result.stderr) == told


def test_help_lists_the_commands(ignn):
    code, out, _ = ignn("--help")
    assert code == 0
    listed = [re.fullmatch(r"  (\S+) +(\S.*)", line) for line in out.split("commands:")[1].splitlines()]
    assert [line[1] for line in listed if line] == [*cli.COMMANDS, *cli.CLONE_COMMANDS]
    assert len({line.start(2) for line in listed if line}) == 1  # one column


def test_without_a_command_they_are_listed(ignn):
    code, out, error = ignn()
    assert (code, out) == (2, "")
    assert set(cli.COMMANDS) | set(cli.CLONE_COMMANDS) <= set(error.split())


@pytest.mark.parametrize("name", [*cli.COMMANDS, *cli.CLONE_COMMANDS])
def test_every_command_says_what_it_does(ignn, name):
    code, out, error = ignn(name, "--help")
    assert (code, error) == (0, "")
    usage, description, *_ = out.split("\n\n")
    assert usage.startswith(f"usage: ignn {name} ")
    assert re.fullmatch(r"[A-Z][^:]*\..*|[A-Z].*\.", description, re.DOTALL), description


def test_a_command_whose_extra_is_absent(ignn, monkeypatch):
    monkeypatch.setitem(cli.CLONE_COMMANDS, "learn", ("module_that_is_absent", "main", "learn"))
    code, _, error = ignn("learn")
    assert code == 1
    assert "module_that_is_absent" in error
    assert "pip install 'ignn[train,cpu]'" in error


def test_a_clones_command_outside_one(ignn, monkeypatch):
    monkeypatch.setattr(cli, "find_clone", lambda: None)
    code, _, error = ignn("train")
    assert code == 1
    assert "works in a clone" in error
    assert "run `ignn train` there" in error


def test_models_lists_what_is_bundled(ignn):
    from runtime.models import bundled_models

    code, out, _ = ignn("models")
    assert code == 0
    for model in bundled_models():
        assert {model.name, model.sha256} <= set(out.split())


def test_compare(ignn, x2_model, sample, tmp_path):
    ignn("upscale", sample, "-o", "a.png", "--model", x2_model)
    values = np.asarray(Image.open("a.png")).copy()
    values[200:220, 300:330] = 255 - values[200:220, 300:330]
    Image.fromarray(values).save("b.png")
    code, out, error = ignn("compare", "a.png", "b.png", "--bicubic", sample, "-o", "sheet.png", "--crop", "64")
    assert code == 0, error
    assert re.search(r"b\.png: \d+\.\d\d dB to a\.png", out)
    assert re.search(r"bicubic: \d+\.\d\d dB to a\.png", out)
    assert Image.open("sheet.png").width > 4 * 64
    code, _, error = ignn("compare", "a.png", sample, "-o", "other.png")
    assert code == 1
    assert "--bicubic" in error


def test_largest_difference_is_found():
    from runtime.commands.compare import Entry, largest_difference, psnr_db

    flat = np.full((60, 80, 3), 100, np.uint8)
    spot = flat.copy()
    spot[40:50, 50:60] = 110
    x, y = largest_difference([Entry("a", flat), Entry("b", spot)], 20)
    assert 40 <= x <= 50
    assert 30 <= y <= 40
    expected = 10 * np.log10(255**2 / (100 * 100 / 4800))
    assert psnr_db(Entry("a", flat), Entry("b", spot)) == pytest.approx(expected, abs=1e-3)


def test_from_a_shell(x2_model, sample, tmp_path):
    command = [sys.executable, "-m", "runtime.cli", "upscale", str(sample), "-o", str(tmp_path / "x.png")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    good = subprocess.run([*command, "--model", str(x2_model)], capture_output=True, env=environment, cwd=tmp_path)
    assert good.returncode == 0
    assert (tmp_path / "x.png").is_file()
    bad = subprocess.run([*command, "--model", "x"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr

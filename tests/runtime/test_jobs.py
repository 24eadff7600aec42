"""Names that a user may type: long ones, pipes, outputs that do not fit, folders that cannot be read."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import atomic, cli, errors
from runtime.commands.find import find_jobs

REPOSITORY = Path(__file__).resolve().parents[2]


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="makes named pipes as POSIX systems do")


@pytest.fixture
def run(x2_model, tmp_path, monkeypatch, capsys):
    """Runs `ignn upscale` in an empty folder; gives the exit code and what it said."""
    monkeypatch.chdir(tmp_path)

    def upscale(*arguments: object) -> tuple[int, str]:
        code = cli.main(["upscale", *map(str, arguments), "--model", str(x2_model)])
        return code, capsys.readouterr().err

    return upscale


def piped(model: Path, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "runtime.cli", "upscale", *arguments, "--model", str(model)]
    return subprocess.run(command, input=data, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})


@POSIX
def test_a_name_as_long_as_the_system_takes(run, sample):
    """83 characters of 3 bytes, and the suffix: 253 bytes of 255."""
    name = "漢" * 83 + ".png"
    Path(name).write_bytes(sample.read_bytes())
    assert run(name, "-o", "out")[0] == 0
    assert [path.name for path in Path("out").glob("[!.]*")] == [name]
    assert run("漢" * 83 + ".png", "-o", f"second/{name}", "--resume")[0] == 0


@POSIX
def test_a_name_that_no_file_can_have(run, sample):
    for arguments in (
        ("x" * 300 + ".png", "-o", "out.png"),
        (sample, "-o", "x" * 300 + ".png"),
        (sample, "-o", "x" * 300),
    ):
        code, error = run(*arguments)
        assert code == 1
        assert "too long" in error.lower()
        assert "Traceback" not in error
        assert "defect" not in error


@POSIX
def test_what_is_not_a_file_is_not_replaced(run, sample):
    Path("folder.png").mkdir()
    os.mkfifo("pipe.png")
    for target in ("pipe.png", "out/folder.png"):
        Path(target).parent.mkdir(exist_ok=True)
        if target.startswith("out"):
            Path("folder.png").rename(target)
        with pytest.raises(errors.WriteError, match="something that is not a file"), atomic.atomic_path(Path(target)):
            pytest.fail("it is written")
    assert run(sample, "-o", "pipe.png")[0] == 1
    assert Path("pipe.png").is_fifo()


def test_a_folder_that_cannot_be_read(run, sample, monkeypatch, caplog):
    """As for a user without permission; root may read everything, so the system's answer is given by the test."""
    for folder in ("in", "in/closed"):
        Path(folder).mkdir()
        Path(folder, "a.png").write_bytes(sample.read_bytes())
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    closed = "closed"
    assert [str(job.source) for job in find_jobs(["in"], "out", recursive=True)] == ["in/a.png"]
    assert "left out the folder in/closed: Permission denied" in caplog.text
    closed = "in"
    code, error = run("in", "-o", "out")
    assert code == 1
    assert "The folder in cannot be read: Permission denied" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "b.png", "-o", "one.png"], "-o one.png is one file, and there are 2 inputs"),
        (["a.png", "b.png", "-o", "one.png"], "-o '{stem}.png'"),
        (["folder", "-o", "sub/one.png"], "-o 'sub/{stem}.png'"),
        (["a.png", "-o", "a.jpg", "--format", "webp"], "-o a.jpg and --format webp name two formats"),
        (["a.png", "b.png", "-o", "{stem}.jpg", "--format", "webp"], "name two formats"),
        (["-", "a.png", "-o", "out"], "enlarged alone"),
        (["-", "-o", "out"], "Standard input has no name"),
        (["-", "-o", "{stem}.png"], "Standard input has no name"),
        (["a.png", "b.png", "-o", "-"], "-o - writes one picture"),
        (["folder", "-o", "-"], "-o - writes one picture"),
        (["a.mp4", "-o", "-"], "-o - writes one picture"),
        (["a.png", "-o", "-", "--stream"], "--stream is for files, and - is none"),
        (["-", "-o", "a.png", "--compare", "b.png"], "--compare is for files"),
        (["a.png", "-o", "b.png", "--threads", "99999999"], "1 to 1024"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(run, sample, arguments, message):
    Path("folder").mkdir()
    for name in ("a.png", "b.png", "a.mp4", "folder/a.png", "folder/b.png"):
        Path(name).write_bytes(sample.read_bytes())
    before = sorted(Path().rglob("*"))
    code, error = run(*arguments)
    assert code == 1
    assert message in error
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        (["in", "-r", "-o", "in/out"], ["in/out/a.png", "in/out/below/b.png"]),
        (["in/*.png", "-o", "in/{stem}_x2.png"], ["in/a_x2.png"]),
        (["in", "-r", "-o", "in/{folder}/{stem}_x2.png"], ["in/a_x2.png", "in/below/b_x2.png"]),
    ],
)
def test_a_second_run_does_not_take_the_outputs_of_the_first(run, photograph, arguments, outputs):
    Path("in/below").mkdir(parents=True)
    for name in ("in/a.png", "in/below/b.png"):
        Image.fromarray(photograph[:20, :30]).save(name)
    before = set(Path("in").rglob("*.png"))
    for _ in range(2):
        assert run(*arguments)[0] == 0
        assert sorted(str(path) for path in set(Path("in").rglob("*.png")) - before) == outputs
    assert "done already" in run(*arguments, "--resume")[1]


def test_two_names_of_one_format(run, sample):
    assert run(sample, "-o", "a.jpeg", "--format", "jpg")[0] == 0
    assert Path("a.jpeg").is_file()


def test_standard_input_and_output(x2_model, sample, photograph, resolver, tmp_path):
    expected = resolver(photograph)
    through = piped(x2_model, "-", "-o", "-", data=sample.read_bytes())
    assert through.returncode == 0, through.stderr
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(through.stdout))), expected)
    out = piped(x2_model, str(sample), "-o", "-", "--format", "webp", "--lossless")
    picture = Image.open(io.BytesIO(out.stdout))
    assert picture.format == "WEBP"
    assert np.array_equal(np.asarray(picture), expected)
    assert piped(x2_model, "-", "-o", str(tmp_path / "x.png"), data=sample.read_bytes()).returncode == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), expected)
    for data, message in ((b"", b"standard input is empty"), (b"hello", b"standard input is not an image")):
        bad = piped(x2_model, "-", "-o", "-", data=data)
        assert (bad.returncode, bad.stdout) == (1, b"")
        assert message in bad.stderr


@POSIX
def test_a_pipe_with_a_name(run, sample):
    """As a shell's <(...) gives it."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(sample.read_bytes()))
    writer.start()
    assert run("pipe", "-o", "x.png")[0] == 0
    writer.join()
    assert Image.open("x.png").size == (450, 300)


def test_a_defect_is_one_message(monkeypatch, capsys):
    monkeypatch.setitem(cli.CLONE_COMMANDS, "learn", ("math", "sqrt", "learn"))
    assert cli.main(["learn"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ignn learn: error: this is a defect of ignn (TypeError: ")
    assert "cli.py:" in error
    assert "Traceback" not in error


def test_a_bmp_with_transparency_becomes_a_png(x2_model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    masks = [0xFF0000, 0xFF00, 0xFF, 0xFF000000]
    header = struct.pack("<IiiHHIIiiII4I52x", 108, 16, 16, 1, 32, 3, 1024, 0, 0, 0, 0, *masks)
    pixels = bytes([50, 100, 200, 128]) * 256
    content = struct.pack("<2sIHHI", b"BM", 122 + len(pixels), 0, 0, 122) + header + pixels
    (tmp_path / "in" / "clear.bmp").write_bytes(content)
    Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "in" / "plain.bmp")
    (tmp_path / "in" / "damaged.bmp").write_bytes(b"BM")
    command = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(x2_model)]
    assert cli.main(command) == 1
    assert capsys.readouterr().err.count("1 BMP with transparency") == 1
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["clear.png", "plain.bmp"]
    with Image.open(tmp_path / "out" / "clear.png") as large:
        assert (large.mode, large.size) == ("RGBA", (32, 32))
    for output in ("named.png", "{stem}.png"):
        plain = [str(tmp_path / "in" / "plain.bmp"), "-o", str(tmp_path / output)]
        assert cli.main(["upscale", *plain, "--model", str(x2_model)]) == 0
        assert "written as PNG" not in capsys.readouterr().err

"""Many files: order, failures, patterns, and a run that is broken off and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver, cli, errors
from runtime.atomic import PART_SUFFIX
from runtime.backends.ort import OrtBackend
from runtime.commands import batch
from runtime.commands.find import find_jobs
from runtime.commands.jobs import Job
from runtime.commands.journal import FILE_NAME
from runtime.pictures.write import WriteOptions

REPOSITORY = Path(__file__).resolve().parents[2]


def make_files(folder: Path, count: int, photograph: np.ndarray) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        paths.append(folder / f"{index:03}.png")
        Image.fromarray(np.roll(photograph[:60, :80], index, axis=1)).save(paths[-1])
    return paths


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f".*{PART_SUFFIX}"))


def test_outcomes_come_in_order_with_the_errors_of_their_files(resolver, photograph, tmp_path):
    paths = make_files(tmp_path / "in", 12, photograph)
    paths[3].write_bytes(b"not a picture")
    paths[7].unlink()
    jobs = [Job(path, tmp_path / "out" / path.name) for path in paths]
    jobs[9] = Job(paths[9], tmp_path / "out" / "x.xyz")
    outcomes = list(batch.run(jobs, resolver, WriteOptions()))
    assert [outcome.job for outcome in outcomes] == jobs
    assert [index for index, outcome in enumerate(outcomes) if outcome.error] == [3, 7, 9]
    assert isinstance(outcomes[3].error, errors.ImageReadError)
    assert isinstance(outcomes[9].error, errors.ImageWriteError)
    for index in (0, 11):
        expected = resolver(np.asarray(Image.open(paths[index])))
        assert np.array_equal(np.asarray(Image.open(jobs[index].target)), expected)


def test_reading_stays_a_few_files_ahead(resolver, photograph, tmp_path):
    paths = make_files(tmp_path / "in", 30, photograph)
    taken = []

    def jobs():
        for path in paths:
            taken.append(path)
            yield Job(path, tmp_path / "out" / path.name)

    running = batch.run(jobs(), resolver, WriteOptions())
    next(running)
    assert len(taken) <= 2 * batch.AHEAD + 3
    running.close()
    assert not leftovers(tmp_path)


def test_decoding_and_encoding_go_on_while_the_network_runs(x2_model, photograph, tmp_path, monkeypatch):
    """The network waits, in its second file, for the third to be decoded and the first to be written."""
    paths = make_files(tmp_path / "in", 3, photograph)
    jobs = [Job(path, tmp_path / "out" / path.name) for path in paths]
    resolver = SuperResolver(x2_model)
    decoded, written, waited = threading.Event(), threading.Event(), []
    read_file, run = batch.read_file, resolver.network.backend.run

    def read(path, **options):
        content = read_file(path, **options)
        if path == paths[2]:
            decoded.set()
        return content

    def compute(lr):
        waited.append(len(waited) != 1 or (decoded.wait(30) and written.wait(30)))
        return run(lr)

    monkeypatch.setattr(batch, "read_file", read)
    monkeypatch.setattr(resolver.network.backend, "run", compute)
    outcomes = batch.run(jobs, resolver, WriteOptions(), finished=lambda job: job == jobs[0] and written.set())
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert waited == [True] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="opens a terminal as POSIX systems do")
def test_the_progress_bar_of_a_terminal(x2_model, photograph, tmp_path):
    """Files done and in all, time spent and left, megapixels a second."""
    make_files(tmp_path / "in", 30, photograph)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    shown = in_terminal(command(x2_model), tmp_path, expected=1)
    assert re.search(rb"31/31 \[\d\d:\d\d<\d\d:\d\d, .*file.*\d+\.\d\d MP/s\]", shown), shown
    assert b"1 of 31 files failed" in shown


def in_terminal(arguments: list[str], folder: Path, *, expected: int = 0) -> bytes:
    """Run a command in a terminal of its own; what it shows there."""
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(arguments, cwd=folder, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == expected, shown
    return shown


@pytest.mark.skipif(sys.platform == "win32", reason="opens a terminal as POSIX systems do")
def test_the_bar_of_one_picture_counts_its_tiles(x2_model, photograph, tmp_path):
    Image.fromarray(photograph).save(tmp_path / "in", "PNG")
    shown = in_terminal(command(x2_model, "--tile", "20", "--format", "png"), tmp_path)
    count = len(SuperResolver(x2_model, tile=20).network.plan(*photograph.shape[:2]))
    assert re.search(rf"{count}/{count} \[\d\d:\d\d<\d\d:\d\d, .*tile.*\]".encode(), shown), shown


def test_folders_patterns_and_globs(x2_model, photograph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(Path("in"), 2, photograph)
    make_files(Path("in/below/deeper"), 1, photograph)
    (Path("in") / "read me.txt").write_text("no picture")

    def targets(*arguments, **options):
        return [str(job.target) for job in find_jobs(*arguments, **options)]

    assert targets(["in"], "out") == ["out/000.png", "out/001.png"]
    assert targets(["in"], "out", recursive=True) == ["out/000.png", "out/001.png", "out/below/deeper/000.png"]
    assert targets(["in/*.png"], "out") == ["out/000.png", "out/001.png"]
    assert targets(["in/*.png"], "o/{stem}_x{scale}{suffix}", scale=2)[0] == "o/000_x2.png"
    assert targets(["in"], "o/{folder}/{name}.webp", recursive=True)[2] == "o/below/deeper/000.png.webp"
    assert targets(["in/000.png"], "x.jpg") == ["x.jpg"]
    assert targets(["in/000.png"], "folder") == ["folder/000.png"]
    assert targets(["in"], "out", suffix=".webp") == ["out/000.webp", "out/001.webp"]
    assert cli.main(["upscale", "in", "-r", "-o", "out", "--format", "jpg", "--model", str(x2_model)]) == 0
    assert sorted(outputs(Path("out"))) == ["000.jpg", "001.jpg"]
    assert Path("out/below/deeper/000.jpg").is_file()


def test_names_that_cannot_be(photograph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(Path("in"), 2, photograph)
    make_files(Path("other"), 1, photograph)
    with pytest.raises(errors.UsageError, match="would both become"):
        find_jobs(["in", "other"], "out")
    with pytest.raises(errors.UsageError, match="is an input as well"):
        find_jobs(["in"], "in")
    with pytest.raises(errors.UsageError, match=r"Supported fields are \{stem\}"):
        find_jobs(["in"], "out/{title}.png")
    with pytest.raises(errors.ImageReadError, match="No pictures"):
        find_jobs(["nothing/*.png"], "out")


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "runtime.cli", "upscale", "in", "-o", "out", "--model", str(model), *arguments]


def start(folder: Path, arguments: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("[!.]*"))) < count:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.005)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_killed_in_the_middle_of_200_files_and_resumed(x2_model, photograph, tmp_path):
    make_files(tmp_path / "in", 200, photograph)
    unbroken = tmp_path / "unbroken"
    assert cli.main(["upscale", str(tmp_path / "in"), "-o", str(unbroken), "--model", str(x2_model)]) == 0
    for count in (40, 120):
        process = start(tmp_path, command(x2_model, "--resume"))
        wait_for(tmp_path / "out", count)
        process.kill()
        process.communicate()
        done = outputs(tmp_path / "out")
        assert len(done) < 200
        assert done.items() <= outputs(unbroken).items()  # what is there is whole
    process = start(tmp_path, command(x2_model, "--resume"))
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert "of 200 files are done already" in error
    assert outputs(tmp_path / "out") == outputs(unbroken)
    assert not leftovers(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_ctrl_c_leaves_no_partial_file(x2_model, photograph, tmp_path):
    make_files(tmp_path / "in", 200, photograph)
    process = start(tmp_path, command(x2_model))
    wait_for(tmp_path / "out", 5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert not leftovers(tmp_path)
    done = outputs(tmp_path / "out")
    assert 5 <= len(done) < 200
    for name in done:
        Image.open(tmp_path / "out" / name).load()
    assert len((tmp_path / "out" / FILE_NAME).read_text().splitlines()) == len(done)


def test_resume_goes_by_the_journal_not_by_names(x2_model, model_file, photograph, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = make_files(Path("in"), 6, photograph)
    assert cli.main(command(x2_model)[3:]) == 0
    first = outputs(Path("out"))

    def resume(*arguments: str, model: Path = x2_model) -> str:
        assert cli.main(command(model, "--resume", *arguments)[3:]) == 0
        return capsys.readouterr().err

    assert "6 of 6 files are done already" in resume()
    Path("out/001.png").write_bytes(first["001.png"][:100])  # cut off
    Path("out/002.png").unlink()
    Image.open(paths[3]).rotate(180).save(paths[3])  # another picture under the old name
    Path("out/006.png").write_bytes(first["000.png"])  # the name of no output
    with Path("out", FILE_NAME).open("a") as file:
        file.write("[" * 100_000 + '\n{"key": "torn')
    assert "3 of 6 files are done already" in resume()
    second = outputs(Path("out"))
    assert all(second[name] == first[name] for name in ("000.png", "001.png", "002.png", "004.png", "005.png"))
    assert second["003.png"] != first["003.png"]
    for arguments in ["--self-ensemble"], ["--tile", "32"], ["--tile", "none"], ["--halo", "9"], ["--halo", "20"]:
        assert "done already" not in resume(*arguments)
        assert "6 of 6 files are done already" in resume(*arguments)
    assert "done already" not in resume(model=model_file(2, {"gain": 0.9}))
    for line in Path("out", FILE_NAME).read_text().splitlines():
        assert json.loads(line).keys() == {"key", "sha256"}


def test_what_runs_it_is_part_of_the_settings(x2_model, monkeypatch):
    """Another backend, provider or version of it is another result."""
    resolver = SuperResolver(x2_model)
    before = resolver.settings
    monkeypatch.setattr(resolver.network.backend, "description", "TensorRT 11.1.0 (Fake 3000)")
    assert resolver.settings != before


def test_frames_of_a_file_stay_together(resolver, photograph, tmp_path):
    frames = [Image.fromarray(np.roll(photograph[:30, :40], index, axis=0)) for index in range(5)]
    make_files(tmp_path, 2, photograph)
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=[10, 20, 30, 40, 50])
    names = ["000.png", "a.png", "001.png"]
    jobs = [Job(tmp_path / name, tmp_path / "out" / name) for name in names]
    progress = []
    outcomes = list(
        batch.run(jobs, resolver, WriteOptions(), progress=lambda job, *done: progress.append((job.source.name, *done)))
    )
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert outcomes[1].pixels == 5 * 60 * 80
    with Image.open(tmp_path / "out" / "a.png") as result:
        for index, frame in enumerate(frames):
            result.seek(index)
            assert result.info["duration"] == 10 * (index + 1)
            assert np.array_equal(np.asarray(result.convert("RGB")), resolver(np.asarray(frame)))
    assert progress == [("000.png", 1, 1), *(("a.png", done, 5) for done in range(1, 6)), ("001.png", 1, 1)]


@pytest.mark.parametrize("place", ["read", "run", "write"])
def test_any_error_is_that_of_its_file(x2_model, photograph, tmp_path, monkeypatch, capsys, place):
    """Also a defect of ours: it is said with the file's name, and the batch goes on."""
    paths = make_files(tmp_path / "in", 5, photograph)
    Image.fromarray(photograph[:10, :10]).save(paths[2])

    def failing(function, is_bad):
        def call(first, *arguments, **options):
            if is_bad(first, *arguments):
                raise IndexError("list index out of range")
            return function(first, *arguments, **options)

        return call

    if place == "read":
        monkeypatch.setattr(batch, "read_file", failing(batch.read_file, lambda path: path == paths[2]))
    elif place == "write":
        monkeypatch.setattr(batch, "write_file", failing(batch.write_file, lambda _, path, __: path.name == "002.png"))
    else:
        run = failing(OrtBackend.run, lambda _, lr: lr.shape[2] == 10)
        monkeypatch.setattr(OrtBackend, "run", run)
    assert cli.main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", str(x2_model)]) == 1
    error = capsys.readouterr().err
    assert f"error: {paths[2]}: this is a defect of ignn (IndexError: list index out of range). Please report" in error
    assert "1 of 5 files failed" in error
    assert sorted(outputs(tmp_path / "out")) == ["000.png", "001.png", "003.png", "004.png"]


def test_threads_do_not_change_what_is_written(x2_model, photograph, tmp_path):
    paths = make_files(tmp_path / "in", 8, photograph)
    resolver = SuperResolver(x2_model, tile=16)
    jobs = [Job(path, tmp_path / "out" / path.name) for path in paths]
    assert not [outcome for outcome in batch.run(jobs, resolver, WriteOptions()) if outcome.error]
    for job in jobs:
        assert np.array_equal(np.asarray(Image.open(job.target)), resolver(np.asarray(Image.open(job.source))))


@pytest.mark.parametrize("target", ["out.jpg", "out.bmp"])
def test_what_an_output_cannot_hold_is_refused_before_the_work(resolver, tmp_path, target):
    Image.new("RGBA", (16, 12), (200, 100, 50, 128)).save(tmp_path / "in.png")
    tiles: list[int] = []
    job = Job(tmp_path / "in.png", tmp_path / target)
    (outcome,) = batch.run([job], resolver, WriteOptions(), progress=lambda _, done, total: tiles.append(done))
    assert "holds no transparency. Give --background white" in str(outcome.error)
    assert tiles == []
    (outcome,) = batch.run([job], resolver, WriteOptions(background="white"), progress=lambda *_: tiles.append(1))
    assert outcome.error is None
    assert tiles

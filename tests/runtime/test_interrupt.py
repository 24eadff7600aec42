"""Ctrl-C while the network runs: the tile ends first, which is said; a second Ctrl-C does not wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.clone import install_command
from runtime.commands.interrupt import run_until_stopped

REPOSITORY = Path(__file__).resolve().parents[2]

SAYS_WHEN_IT_RUNS = """
import sys
from runtime import cli
from runtime.backends.ort import OrtBackend
from runtime.commands import interrupt
interrupt.PATIENCE_SECONDS = 0.01
run = OrtBackend.run
OrtBackend.run = lambda self, lr: (sys.stderr.write("running\\n"), run(self, lr))[1]
sys.exit(cli.main(sys.argv[1:]))
"""


def start(folder: Path, arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SAYS_WHEN_IT_RUNS, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(("times", "convolutions"), [(1, 15), (2, 1000)])
@pytest.mark.parametrize("kind", ["picture", "stream", "clip"])
def test_ctrl_c_while_a_tile_runs(model_file, tmp_path, kind, times, convolutions):
    """With 1000 convolutions the tile would take minutes."""
    slow = model_file(2, {"convolutions": convolutions, "width": 32})
    pixels = np.zeros((700, 700, 3), np.uint8)
    source, target = ("in.mkv", "out.mkv") if kind == "clip" else ("in.png", "out.png")
    if kind == "clip":
        from clips import make_clip

        make_clip(tmp_path / source, [pixels] * 3)
    else:
        if kind == "stream":
            pytest.importorskip("pyvips", reason=f"needs pyvips: {install_command('stream')}")
        Image.fromarray(pixels).save(tmp_path / source)
    arguments = ["upscale", source, "-o", target, "--model", str(slow), "--tile", "none", "--threads", "1"]
    process = start(tmp_path, [*arguments, "--stream"] if kind == "stream" else arguments)
    assert process.stderr is not None
    assert process.stderr.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    assert "stopping after the tile that is running (Ctrl-C again: at once)" in process.stderr.readline()
    if times == 2:
        process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 130, error
    assert "interrupted" in error
    assert "running" not in error
    assert "Traceback" not in error
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != source]
    assert not left


def test_work_gives_its_result_or_its_error():
    assert run_until_stopped(lambda check: 7, pytest.fail) == 7
    with pytest.raises(ZeroDivisionError):
        run_until_stopped(lambda check: 1 // 0, pytest.fail)


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_signal_that_does_not_end_a_wait(resolver):
    """As one does that comes just before the wait begins: another thread takes it, and the main one stays asleep."""

    def interrupt() -> None:
        time.sleep(0.3)  # until the main thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    late: list[str] = []
    raised = threading.Event()

    def work(check: Callable[[], None]) -> None:
        interrupt()
        for _ in range(1000):
            check()
            time.sleep(0.01)
        late.append("work")

    def images() -> Iterator[np.ndarray]:
        interrupt()
        if not raised.wait(10):
            late.append("images")
        yield np.zeros((8, 8, 3), np.uint8)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_until_stopped(work, pytest.fail)
        with pytest.raises(KeyboardInterrupt):
            next(resolver.map(images()))
    finally:
        signal.signal(signal.SIGINT, before)
    raised.set()
    assert not late


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_work_begins_only_where_its_ctrl_c_is_caught(monkeypatch):
    """A machine so busy that the new thread runs long before the main one returns from starting it."""
    begin = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        begin(thread)
        time.sleep(0.3)

    ended: list[str] = []

    def work(check: Callable[[], None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            for _ in range(200):
                check()
                time.sleep(0.01)
        finally:
            ended.append("work")

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_until_stopped(work, pytest.fail)
        assert ended == ["work"]
    finally:
        signal.signal(signal.SIGINT, before)

"""Clips: what is enlarged, and what must stay as it was."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, av, make_clip, packets, read_clip

from runtime import SuperResolver, cli, errors
from runtime.backends.ort import OrtBackend
from runtime.commands import video
from runtime.commands.video import upscale_video

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("source", "target"), [("in.mkv", "out.mkv"), ("in.mp4", "out.mp4"), ("in.mkv", "out.mp4")])
def test_everything_else_stays(x2_model, frames, tmp_path, source, target):
    make_clip(tmp_path / source, frames)
    arguments = ["upscale", str(tmp_path / source), "-o", str(tmp_path / target), "--model", str(x2_model)]
    assert cli.main(arguments) == 0
    old, before = read_clip(tmp_path / source)
    new, after = read_clip(tmp_path / target)
    assert after.pop("size") == (2 * SIZE[0], 2 * SIZE[1])
    before.pop("size")
    assert after == before
    assert [frame.pts * frame.time_base for frame in new] == [frame.pts * frame.time_base for frame in old]
    assert len(new) == 60
    assert packets(tmp_path / target, "audio") == packets(tmp_path / source, "audio")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


def test_subtitles_are_copied(plain, frames, tmp_path):
    make_clip(tmp_path / "in.mkv", frames[:5], text=True)
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(tmp_path / "in.mkv", "subtitle") == [b"Hello"]


@pytest.mark.parametrize("deep", [False, True])
def test_colors_stay_in_the_clip_s_own_numbers(plain, tmp_path, deep):
    """The luma and chroma of a saturated color, as stored, before and after: a wrong matrix would move them by tens."""
    color = np.array([200, 30, 60]) * (257 if deep else 1)
    flat = np.full((48, 64, 3), color, np.uint16 if deep else np.uint8)
    make_clip(tmp_path / "in.mkv", [flat] * 3, deep=deep)
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "out.mkv")
    (old, *_), _ = read_clip(tmp_path / "in.mkv")
    (new, *_), _ = read_clip(tmp_path / "out.mkv")
    for plane in range(3):
        kind = np.uint16 if deep else np.uint8
        before = np.frombuffer(old.planes[plane], kind)[0]
        after = np.frombuffer(new.planes[plane], kind)[0]
        assert abs(int(before) - int(after)) <= (4 if deep else 1)


def test_ten_bits_are_kept(plain, tmp_path):
    ramp = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64, 1).repeat(3, axis=2)
    make_clip(tmp_path / "in.mkv", [ramp] * 2, deep=True, sound=False)
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "out.mkv", quality=4)
    (frame, *_), facts = read_clip(tmp_path / "out.mkv")
    assert facts["format"] == "yuv420p10le"
    assert len(np.unique(frame.to_ndarray(format="gray10le"))) > 256


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_clip_held_sideways_is_upright(plain, tmp_path, degrees):
    """The picture is turned as the container says, once: as the EXIF orientation of a photograph."""
    frame = np.full((48, 64, 3), 20, np.uint8)
    frame[:24, :32] = 220  # upper left
    make_clip(tmp_path / "in.mp4", [frame] * 2, sound=False)
    content = bytearray((tmp_path / "in.mp4").read_bytes())
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]  # clockwise
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    place = content.index(upright, content.index(b"tkhd"))
    content[place : place + len(matrix)] = matrix
    (tmp_path / "in.mp4").write_bytes(content)
    upscale_video(plain, tmp_path / "in.mp4", tmp_path / "out.mp4")
    (result, *_), facts = read_clip(tmp_path / "out.mp4")
    assert facts["size"] == ((128, 96) if degrees == 180 else (96, 128))
    assert result.rotation == 0
    light = result.to_ndarray(format="gray") > 120
    expected = np.rot90(np.pad(np.ones((48, 64), bool), ((0, 48), (0, 64))), -degrees // 90)
    assert (light == expected).mean() > 0.97


@pytest.mark.parametrize("deep", [False, True])
def test_webm(plain, frames, tmp_path, deep, caplog):
    """VP9, whose groups follow each other as well, of 10 bits if the encoder has them, else with a word."""
    clip = [frame.astype(np.uint16) * 257 for frame in frames] if deep else frames
    make_clip(tmp_path / "in.mkv", clip, deep=deep, sound=False)
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "out.webm")
    old, before = read_clip(tmp_path / "in.mkv")
    new, after = read_clip(tmp_path / "out.webm")
    if "reduced to 8 bits" in caplog.text:
        assert deep
        assert "yuv420p10le" not in [known.name for known in av.Codec("libvpx-vp9", "w").video_formats]
        before["format"] = "yuv420p"
    assert after == before | {"size": (2 * SIZE[0], 2 * SIZE[1])}
    assert [frame.pts * frame.time_base for frame in new] == [frame.pts * frame.time_base for frame in old]


def test_killed_and_resumed(x2_model, frames, tmp_path):
    make_clip(tmp_path / "in.mkv", frames * 4)
    upscale_video(SuperResolver(x2_model), tmp_path / "in.mkv", tmp_path / "whole.mkv")
    arguments = [sys.executable, "-m", "runtime.cli", "upscale", "in.mkv", "-o", "out.mkv", "--model", str(x2_model)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(arguments, cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob(".out.mkv.*/*.nut"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "out.mkv").exists()
    (folder,) = tmp_path.glob(".out.mkv.*.ignn-groups")
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}
    resumed = subprocess.run([*arguments, "--resume"], cwd=tmp_path, env=environment, check=False)
    assert resumed.returncode == 0
    assert len(kept) >= 2
    assert not folder.exists()
    assert packets(tmp_path / "out.mkv", "video") == packets(tmp_path / "whole.mkv", "video")


def test_what_is_not_a_clip(x2_model, frames, sample, tmp_path, capsys):
    make_clip(tmp_path / "in.mkv", frames[:3])
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    for source, target, message in [
        ("text.mp4", "out.mp4", "text.mp4"),
        ("empty.mp4", "out.mp4", "is empty"),
        ("absent.mp4", "out.mp4", "There is no file"),
        ("in.mkv", "out.avi", "Supported values are .mp4"),
    ]:
        arguments = ["upscale", str(tmp_path / source), "-o", str(tmp_path / target), "--model", str(x2_model)]
        assert cli.main(arguments) == 1
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mp4", "in.mkv", "text.mp4"]


def test_resume_takes_only_groups_of_the_same_settings(x2_model, frames, tmp_path, monkeypatch):
    """Groups that another tile, halo, backend or quality made are not part of the clip."""
    make_clip(tmp_path / "in.mkv", frames[:50], sound=False)

    def fails(*_):
        raise OSError("disk full")

    def frames_run(*, quality=None, **options) -> int:
        resolver, count = SuperResolver(x2_model, **options), 0
        run = resolver.network.backend.run

        def counted(lr):
            nonlocal count
            count += 1
            return run(lr)

        resolver.network.backend.run = counted
        with pytest.raises(errors.ImageWriteError, match="disk full"):
            upscale_video(resolver, tmp_path / "in.mkv", tmp_path / "out.mkv", resume=True, quality=quality)
        return count

    monkeypatch.setattr(video, "_join", fails)
    assert frames_run(tile=None) == 50
    assert frames_run(tile=None) == 0
    assert frames_run() == 50
    assert frames_run(halo=12, tile=None) == 50
    assert frames_run(tile=None, quality=30) == 50
    assert frames_run(tile=None) == 0
    description = property(lambda self: "another runtime", lambda self, value: None)
    monkeypatch.setattr(OrtBackend, "description", description, raising=False)
    assert frames_run(tile=None) == 50

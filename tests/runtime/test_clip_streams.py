"""What a clip holds beside its picture, and what is said before the work of what cannot stay."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from clips import SIZE, av, make_clip, packets, read_clip
from PIL import Image

from runtime import cli, errors
from runtime.commands.clip_encoding import H264, VP9
from runtime.commands.video import upscale_video

CHAPTERS = [
    {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}},
    {"id": 2, "start": 500, "end": 900, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}},
]


@pytest.fixture
def no_work(plain, monkeypatch):
    """A resolver whose network must not run."""
    monkeypatch.setattr(plain.network.backend, "run", lambda _: pytest.fail("the network has run"))
    return plain


def make_rich_clip(path, frames, *, cover=False, chapters=False, text=False):
    """A clip with more than picture and sound, made of one with these."""
    make_clip(path.with_suffix(".plain.mkv"), frames)
    with av.open(str(path.with_suffix(".plain.mkv"))) as old, av.open(str(path), "w") as new:
        added = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        if chapters:
            new.set_chapters(CHAPTERS)
        picture = io.BytesIO()
        Image.new("RGB", (32, 32), "red").save(picture, "PNG")
        if cover and path.suffix == ".mkv":
            new.add_attachment("cover.png", "image/png", picture.getvalue())
        elif cover:
            with av.open(io.BytesIO(picture.getvalue())) as drawn:
                art = new.add_stream_from_template(drawn.streams[0], opaque=True)
                art.disposition = av.stream.Disposition.attached_pic
                packet = next(iter(drawn.demux()))
                packet.stream = art
                new.mux(packet)
        subtitles = new.add_stream("mov_text") if text else None
        if subtitles is not None:
            subtitles.codec_context.subtitle_header = b""
            packet = av.Packet(struct.pack(">H", 5) + b"Hello")
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = 100
            packet.duration = 500
            new.mux(packet)
        for packet in old.demux():
            if packet.size:
                packet.stream = added[packet.stream.index]
                new.mux(packet)
    path.with_suffix(".plain.mkv").unlink()
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("source", ["in.mkv", "in.mp4"])
def test_chapters_stay(plain, frames, tmp_path, source, suffix, caplog):
    make_rich_clip(tmp_path / source, frames[:20], chapters=True)
    upscale_video(plain, tmp_path / source, tmp_path / f"out{suffix}")
    assert "left out" not in caplog.text
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        found = [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in container.chapters()]
    assert found == [(0, "One"), (Fraction(1, 2), "Two")]


@pytest.mark.parametrize(
    ("source", "target"), [("in.mp4", "out.mp4"), ("in.mkv", "out.mkv"), ("in.mp4", "out.mkv"), ("in.mkv", "out.mp4")]
)
def test_the_cover_stays(plain, frames, tmp_path, source, target):
    make_rich_clip(tmp_path / source, frames[:3], cover=True)
    upscale_video(plain, tmp_path / source, tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        (cover,) = covers
        (picture,) = [bytes(packet) for packet in container.demux(cover) if packet.size]
    assert Image.open(io.BytesIO(picture)).getpixel((5, 5)) == (255, 0, 0)


def test_what_is_left_out_is_said(plain, frames, tmp_path, caplog):
    make_rich_clip(tmp_path / "in.mp4", frames[:3], cover=True)
    for suffix in (".webm", ".mov"):
        upscale_video(plain, tmp_path / "in.mp4", tmp_path / f"out{suffix}")
        assert f"left out, as it is not written to {suffix}: the cover" in caplog.text
    with av.open(str(tmp_path / "alpha.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "argb"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((12, 16, 4), np.uint8), format="argb")))
        container.mux(stream.encode(None))
    upscale_video(plain, tmp_path / "alpha.mov", tmp_path / "out.mkv")
    assert "left out, as it is not written to .mkv: transparency" in caplog.text


@pytest.mark.parametrize(("target", "codec"), [("out.webm", "opus"), ("out.mov", "aac")])
def test_sound_that_does_not_fit_is_transcoded_with_a_word(plain, frames, tmp_path, caplog, target, codec):
    make_clip(tmp_path / "in.mkv", frames[:12])
    source = tmp_path / "in.mkv"
    if codec == "aac":  # Opus does not fit into .mov
        upscale_video(plain, source, tmp_path / "opus.webm")
        source = tmp_path / "opus.webm"
    upscale_video(plain, source, tmp_path / target)
    assert f"to {'Opus' if codec == 'opus' else 'AAC'}, which .{target[4:]} holds" in caplog.text

    def wave(path):
        with av.open(str(path)) as container:
            assert path.name != target or container.streams.audio[0].codec_context.name == codec
            resampler = av.AudioResampler("flt", "mono", 48000)
            blocks = [b for frame in container.decode(audio=0) for b in resampler.resample(frame)]
        return np.concatenate([block.to_ndarray()[0] for block in blocks])

    old, new = wave(source), wave(tmp_path / target)
    assert abs(len(old) - len(new)) < 4096
    assert np.std(new[2000:16000]) == pytest.approx(np.std(old[2000:16000]), rel=0.1)


def test_subtitles_that_do_not_fit_are_told_before_the_work(no_work, frames, tmp_path):
    make_clip(tmp_path / "in.mkv", frames[:5], text=True)
    make_rich_clip(tmp_path / "in.mp4", frames[:5], text=True)
    before = names(tmp_path)
    for source, target, remedy in (
        ("in.mkv", "out.mp4", r"subtitles of .*in\.mkv \(\w+\) cannot be written to \.mp4\. Use \.mkv\."),
        ("in.mp4", "out.mkv", r"\(mov_text\) cannot be written to \.mkv\. Use \.mp4 or \.mov\."),
    ):
        with pytest.raises(errors.ImageWriteError, match=remedy):
            upscale_video(no_work, tmp_path / source, tmp_path / target)
    assert names(tmp_path) == before


def test_subtitles_of_mp4_stay(plain, frames, tmp_path):
    make_rich_clip(tmp_path / "in.mp4", frames[:5], text=True)
    upscale_video(plain, tmp_path / "in.mp4", tmp_path / "out.mov")
    assert packets(tmp_path / "out.mov", "subtitle") == packets(tmp_path / "in.mp4", "subtitle")


def test_matroska_says_its_frame_rate(plain, frames, tmp_path):
    rate = Fraction(30000, 1001)
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = SIZE
        for frame in frames[:50]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].average_rate == rate


def test_a_size_that_changes_in_mid_stream(plain, tmp_path, caplog):
    """As in a recording of television: the clip stays at its first size."""
    with av.open(str(tmp_path / "in.ts"), "w") as container:
        first = container.add_stream("libx264", rate=25)
        first.width, first.height = 64, 48
        first.pix_fmt = "yuv420p"
        container.start_encoding()
        second = av.CodecContext.create("libx264", "w")
        second.width, second.height, second.pix_fmt = 32, 64, "yuv420p"
        second.time_base, second.framerate = Fraction(1, 25), Fraction(25)
        for number in range(10):
            encoder = first if number < 5 else second
            level = 60 if number < 5 else 180
            frame = av.VideoFrame.from_ndarray(np.full((encoder.height, encoder.width, 3), level, np.uint8))
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = number % 5 + 5 * (number // 5), Fraction(1, 25)
            made = list(encoder.encode(frame)) + (list(encoder.encode(None)) if number in (4, 9) else [])
            for packet in made:
                packet.stream = first
                packet.time_base = Fraction(1, 25)
                container.mux(packet)
    upscale_video(plain, tmp_path / "in.ts", tmp_path / "out.mkv")
    new, facts = read_clip(tmp_path / "out.mkv")
    assert facts["size"] == (128, 96)
    assert {(frame.width, frame.height) for frame in new} == {(128, 96)}
    levels = [frame.to_ndarray(format="gray").mean() for frame in new]
    assert len(levels) == 10
    assert min(levels[5:]) > 150 > 90 > max(levels[:5])
    assert "changes its size from 64 x 48 to 32 x 64" in caplog.text


def test_quality_is_the_scale_of_pictures(plain, frames, tmp_path):
    """Higher is better, and 95 is nearly perfect, as in JPEG."""
    for codec in (H264, VP9):
        factors = [codec.rate_factor(quality) for quality in range(1, 101)]
        assert factors == sorted(factors, reverse=True)
        assert codec.rate_factor(None) == {"libx264": 16, "libvpx-vp9": 24}[codec.name]
    make_clip(tmp_path / "in.mkv", frames[:10], sound=False)
    size, error = {}, {}
    upscale_video(plain, tmp_path / "in.mkv", tmp_path / "100.mkv", quality=100)
    best = [frame.to_ndarray(format="gray").astype(float) for frame in read_clip(tmp_path / "100.mkv")[0]]
    for quality in (10, 50, 95):
        upscale_video(plain, tmp_path / "in.mkv", tmp_path / f"{quality}.mkv", quality=quality)
        size[quality] = (tmp_path / f"{quality}.mkv").stat().st_size
        shown = [frame.to_ndarray(format="gray") for frame in read_clip(tmp_path / f"{quality}.mkv")[0]]
        error[quality] = np.mean([np.square(a - b).mean() for a, b in zip(shown, best, strict=True)])
    assert size[10] < size[50] < size[95]
    assert error[10] > error[50] > error[95]
    assert error[95] < 4  # PSNR above 42 dB


def test_several_clips_and_pictures_in_one_command(x2_model, frames, sample, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mkv", "b.mp4"):
        make_clip(tmp_path / name, frames[:4])
    make_clip(tmp_path / "old.avi", frames[:4])
    (tmp_path / "bad.mp4").write_text("hello")
    inputs = ["a.mkv", "b.mp4", "old.avi", "bad.mp4", str(sample)]
    command = ["upscale", *inputs, "-o", "out", "--model", str(x2_model)]
    assert cli.main(command) == 1
    error = capsys.readouterr().err
    assert "bad.mp4" in error
    assert "1 of 5 files failed" in error
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == ["a.mkv", "b.mp4", "old.mkv", "sample.png"]
    for name in ("a.mkv", "b.mp4", "old.mkv"):
        new, facts = read_clip(tmp_path / "out" / name)
        assert (len(new), facts["size"]) == (4, (128, 96))
    assert packets(tmp_path / "out" / "a.mkv", "audio") == packets(tmp_path / "a.mkv", "audio")
    assert cli.main([*command, "--resume"]) == 1
    assert "4 of 5 files are done already" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--stream"], ["--compare", "x.png"], ["--format", "png"], ["--lossless"]])
def test_options_that_are_not_for_clips(x2_model, frames, tmp_path, capsys, option):
    make_clip(tmp_path / "in.mkv", frames[:2])
    arguments = ["upscale", str(tmp_path / "in.mkv"), "-o", str(tmp_path / "out.mkv"), "--model", str(x2_model)]
    assert cli.main([*arguments, *option]) == 1
    assert f"{option[0]} is for pictures" in capsys.readouterr().err

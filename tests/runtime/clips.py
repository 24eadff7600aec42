"""Small clips, and what is in a clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from runtime.clone import install_command

av = pytest.importorskip("av", reason=f"needs PyAV: {install_command('video')}")

BT709 = 1
SIZE = (64, 48)


def make_clip(
    path: Path, frames: list[np.ndarray], *, deep: bool = False, sound: bool = True, text: bool = False
) -> Path:
    """A clip of variable frame rate in BT.709, with sound, and subtitles if wanted."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "yuv420p10le" if deep else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for tag in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(stream.codec_context, tag, BT709)
        audio = container.add_stream("aac", rate=48000) if sound else None
        if text:
            path.with_suffix(".srt").write_text("1\n00:00:00,100 --> 00:00:00,600\nHello\n")
            written = av.open(str(path.with_suffix(".srt")))
            subtitles = container.add_stream_from_template(written.streams[0])
        time_ms = 0
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if deep else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=BT709, dst_color_range=BT709)
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            time_ms += 75 if index % 3 == 0 else 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            for index in range(20):
                wave = (np.sin(np.arange(1024) * 0.05 + index) * 0.3).astype(np.float32)[None]
                block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48000, index * 1024, Fraction(1, 48000)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
        if text:
            for packet in written.demux():
                if packet.dts is not None:
                    packet.stream = subtitles
                    container.mux(packet)
    return path


def read_clip(path: Path) -> tuple[list, dict]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        color = stream.codec_context
        facts = {tag: getattr(color, tag) for tag in ("colorspace", "color_primaries", "color_trc", "color_range")}
        facts |= {"size": (stream.width, stream.height), "format": color.pix_fmt}
        facts["kinds"] = [stream.type for stream in container.streams]
        return list(container.decode(stream)), facts


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams) if packet.size]

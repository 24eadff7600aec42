"""How the frames of a clip become pictures, and enlarged pictures frames: codec, quality, pixels and colors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..pictures.picture import Picture, from_array

logger = logging.getLogger("ignn")

# PyAV's classes exist only where PyAV is: its containers, streams and frames are `Any` here.

GROUP = 48
"""How many frames a group has. A run that is broken off loses at most one group."""

COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
"""Attributes of a codec context that say what the numbers mean."""


@dataclass(frozen=True)
class Codec:
    """An encoder.

    Attributes:
        name: FFmpeg's name of it.
        quality: the default, 1 to 100.
        factors: its rate factors at the qualities `QUALITIES`.
    """

    name: str
    quality: int
    factors: tuple[int, ...]

    def rate_factor(self, quality: int | None) -> int:
        """Return the constant rate factor, lower is better, of a quality of 1 to 100, higher is better."""
        return round(float(np.interp(self.quality if quality is None else quality, QUALITIES, self.factors)))


QUALITIES = (1, 10, 25, 50, 75, 85, 90, 95, 100)
"""Where a frame of each encoder has about the PSNR of a JPEG file of that quality, by the rate factors below."""

H264 = Codec("libx264", 92, (48, 37, 32, 29, 26, 22, 19, 11, 1))  # 0: a profile that few play
VP9 = Codec("libvpx-vp9", 94, (63, 62, 59, 53, 48, 43, 37, 21, 0))


def codec_of(suffix: str) -> Codec:
    """Return the encoder of a container."""
    return VP9 if suffix == ".webm" else H264


@dataclass(frozen=True)
class Encoding:
    """How the enlarged frames of a clip are encoded: the same in all groups, and in the clip that they become.

    Attributes:
        codec: the encoder.
        rate_factor: its constant rate factor.
        rate: the clip's average frames a second.
        height, width: of an enlarged frame.
        pixel_format: FFmpeg's name of it.
        time_base: unit of the timestamps, in seconds.
        aspect: width of a pixel over its height, or None.
        tags: values of `COLOR_TAGS`.
    """

    codec: Codec
    rate_factor: int
    rate: Fraction
    height: int
    width: int
    pixel_format: str
    time_base: Fraction
    aspect: Fraction | None
    tags: dict[str, int]

    def add_to(self, output: Any) -> Any:  # noqa: ANN401
        """Add the stream of the enlarged frames to a container."""
        # Without B-frames decoding order is showing order, so that groups can follow each other as they are.
        options = {"crf": str(self.rate_factor), "bf": "0"}
        # Matroska's frame rate is that of an encoder's stream; a stream made from a template has none.
        stream = output.add_stream(self.codec.name, rate=self.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = self.height, self.width, self.pixel_format
        stream.time_base = stream.codec_context.time_base = self.time_base
        stream.codec_context.gop_size = GROUP
        for tag, value in self.tags.items():
            setattr(stream.codec_context, tag, value)
        if self.aspect:
            stream.codec_context.sample_aspect_ratio = self.aspect
        return stream


def encoding_of(
    av: ModuleType,
    source: Any,  # noqa: ANN401
    frame: Any,  # noqa: ANN401
    scale: int,
    suffix: str,
    quality: int | None,
) -> Encoding:
    """Decide how a clip is encoded, by its stream and its first frame."""
    codec, turned = codec_of(suffix), _turns(frame) % 2
    height, width = (frame.width, frame.height) if turned else (frame.height, frame.width)
    # 4:2:0 needs even sides, which an odd scale of an odd side is not.
    pixel_format = "yuv420p" if height * scale % 2 == width * scale % 2 == 0 else "yuv444p"
    if _is_deep(frame):
        known = {known.name for known in av.Codec(codec.name, "w").video_formats or ()}
        if f"{pixel_format}10le" in known:
            pixel_format = f"{pixel_format}10le"
        else:
            logger.warning("reduced to 8 bits a channel, which is what %s holds here: .mkv holds 10", codec.name)
    aspect = source.sample_aspect_ratio
    return Encoding(
        codec,
        codec.rate_factor(quality),
        rate_of(source),
        height * scale,
        width * scale,
        pixel_format,
        frame.time_base,
        1 / aspect if aspect and turned else aspect,
        {tag: getattr(source.codec_context, tag) for tag in COLOR_TAGS},
    )


def rate_of(stream: Any) -> Fraction:  # noqa: ANN401
    """Return a stream's average frames a second."""
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def in_order(frames: Iterator[Any], rate: Fraction) -> Iterator[Any]:
    """Yield frames, each later than the one before: AVI may give none a time, or two the same.

    Args:
        frames: as they are decoded.
        rate: frames a second, for frames without a time.
    """
    last: int | None = None
    for frame in frames:
        if frame.pts is None or (last is not None and frame.pts <= last):
            frame.pts = 0 if last is None else last + max(1, round(1 / (rate * frame.time_base)))
        last = frame.pts
        yield frame


def decode(frame: Any) -> Picture:  # noqa: ANN401
    """Return a frame, turned upright, as a picture."""
    return from_array(_rgb(frame, deep=_is_deep(frame)))


def beside(picture: Picture, frame: Any) -> tuple[Any, NDArray[Any]]:  # noqa: ANN401
    """Return an enlarged frame's pixels, (H, W, 3) uint8 or uint16, beside the frame that they are of."""
    return frame, picture.color


def _rgb(frame: Any, *, deep: bool) -> NDArray[Any]:  # noqa: ANN401
    """Return a frame, turned upright, as (H, W, 3) RGB of uint8 or uint16.

    Where the clip does not name its color matrix, FFmpeg takes BT.601.
    """
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb48le" if deep else "rgb24"), _turns(frame)))


def _is_deep(frame: Any) -> bool:  # noqa: ANN401
    return max((component.bits for component in frame.format.components), default=8) > 8


def _turns(frame: Any) -> int:  # noqa: ANN401
    """Return how many quarter turns to the left bring a frame upright."""
    return round(frame.rotation / 90) % 4


def frame_of(av: ModuleType, rgb: NDArray[Any], pixel_format: str, color: Any) -> Any:  # noqa: ANN401
    """Make a frame of the encoder's pixel format from RGB, with the source's color matrix and range."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if rgb.dtype == np.uint16 else "rgb24")
    return frame.reformat(
        format=pixel_format,
        dst_colorspace=color.colorspace if color.colorspace not in (0, 2) else None,
        dst_color_range=color.color_range or None,
    )

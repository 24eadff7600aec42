"""Video by PyAV: every frame enlarged, everything else kept.

Audio, subtitles and other streams are copied packet by packet. Frames keep their timestamps, so a variable frame rate
stays one. Frames of more than 8 bits are read with 16 and written with 10. Where the container says that the camera was
held sideways, the pixels are turned instead. The clip is encoded in groups of frames, each in a file of its own beside
the output, which become the output at the end: a broken run resumes after the last whole group.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import atomic_path
from ..clone import install_command
from ..errors import BackendUnavailableError, ImageReadError, ImageWriteError
from ..pictures.picture import Picture, from_array
from ..super_resolver import SuperResolver
from ..tiles.mapping import ResultIterator

logger = logging.getLogger("ignn")

SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Containers that are written, by suffix, with their FFmpeg names."""

READABLE = {*SUFFIXES, ".avi", ".m4v", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
"""Suffixes that are taken for video."""

GROUP = 48
"""How many frames a group has. A run that is broken off loses at most one group."""

COLOR_TAGS = ("color_range", "colorspace", "color_primaries", "color_trc")
"""Attributes of a codec context that say what the numbers mean."""


def upscale_video(
    resolver: SuperResolver,
    source: Path,
    target: Path,
    *,
    quality: int | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Enlarge a clip.

    Args:
        source: any video that FFmpeg reads; its first video stream is enlarged.
        target: .mp4, .mov, .mkv (H.264) or .webm (VP9).
        quality: constant rate factor, lower is better; None: 16 for H.264, 24 for VP9.
        resume: go on after the last whole group of an earlier run.
        progress: called with (frames done, frames in all or 0 if the file does not say).

    Raises:
        ImageReadError, ImageWriteError: what cannot be read, what cannot be written.
        BackendUnavailableError: PyAV is not installed.
    """
    av = _av()
    if target.suffix.lower() not in SUFFIXES:
        raise ImageWriteError(f"Invalid video suffix of {target}. Supported values are {', '.join(SUFFIXES)}.")
    if not source.is_file() or source.stat().st_size == 0:
        raise ImageReadError(f"There is no file {source}, or it is empty.")
    groups = _groups_folder(source, target, f"{resolver.settings} {quality} {av.library_versions}")
    if not resume:
        shutil.rmtree(groups, ignore_errors=True)
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise ImageReadError(f"{source} has no video stream.")
            parts = _encode_groups(av, resolver, container, target, groups, quality, progress)
        if not parts:
            raise ImageReadError(f"{source} has no frame that can be decoded.")
        with atomic_path(target, error=ImageWriteError) as temporary:
            _join(av, source, parts, temporary, SUFFIXES[target.suffix.lower()])
    except av.FFmpegError as error:
        raise ImageReadError(f"{source} cannot be enlarged to {target.name}: {error}.") from error
    except OSError as error:
        raise ImageWriteError(f"Cannot write {target}: {error}. Choose another -o.") from error
    shutil.rmtree(groups)


def _groups_folder(source: Path, target: Path, settings: str) -> Path:
    """Return the folder of the groups; its name holds a hash of everything that decides what is in them."""
    state = source.stat()
    key = f"{source.resolve()} {state.st_size} {state.st_mtime_ns} {target.suffix} {settings} {GROUP}"
    return target.parent / f".{target.name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.ignn-groups"


def _encode_groups(
    av: ModuleType,
    resolver: SuperResolver,
    container: Any,  # noqa: ANN401 - PyAV's classes exist only where PyAV is
    target: Path,
    groups: Path,
    quality: int | None,
    progress: Callable[[int, int], None],
) -> list[Path]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    total, done = stream.frames, 0
    parts: list[Path] = []
    frames = container.decode(stream)
    encoder = av.Codec(_codec(target.suffix.lower())[0], "w")
    for first in frames:
        if not parts and _is_deep(first) and _ten_bits(encoder, "yuv420p") == "yuv420p":
            logger.warning("reduced to 8 bits a channel, which is what %s holds here: .mkv holds 10", encoder.name)
        path = groups / f"{len(parts):06}.nut"
        group = chain([first], (frame for _, frame in zip(range(GROUP - 1), frames, strict=False)))
        if path.is_file():
            done += sum(1 for _ in group)
        else:
            with atomic_path(path, error=ImageWriteError) as temporary:
                for _ in _encode_group(av, resolver, stream, group, temporary, target.suffix.lower(), quality):
                    done += 1
                    progress(done, total)
        progress(done, total)
        parts.append(path)
    return parts


def _encode_group(
    av: ModuleType,
    resolver: SuperResolver,
    source: Any,  # noqa: ANN401
    frames: Iterator[Any],
    path: Path,
    suffix: str,
    quality: int | None,
) -> Iterator[None]:
    """Encode a group into a file of its own; yield after each frame."""
    with (
        av.open(str(path), "w", format="nut") as output,
        ResultIterator(resolver.network, frames, _decode, _beside) as results,
    ):
        stream = None
        for frame, sr in results:
            if stream is None:
                stream = _add_video(output, source, frame, sr.shape[:2], suffix, quality)
            large = _frame(av, sr, stream.pix_fmt, source.codec_context)
            large.pts, large.time_base = frame.pts, frame.time_base
            output.mux(stream.encode(large))
            yield
        if stream is not None:
            output.mux(stream.encode(None))


def _add_video(
    output: Any,  # noqa: ANN401
    source: Any,  # noqa: ANN401
    frame: Any,  # noqa: ANN401
    size: tuple[int, int],
    suffix: str,
    quality: int | None,
) -> Any:  # noqa: ANN401
    """Add the stream of the enlarged frames, whose height and width are `size`, to a container."""
    codec, default = _codec(suffix)
    # Without B-frames decoding order is showing order, so that groups can follow each other as they are.
    options = {"crf": str(default if quality is None else quality), "bf": "0"}
    stream = output.add_stream(codec, rate=source.average_rate or source.guessed_rate or 25, options=options)
    # 4:2:0 needs even sides, which an odd scale of an odd side is not.
    even = size[0] % 2 == 0 and size[1] % 2 == 0
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p" if even else "yuv444p"
    if _is_deep(frame):
        stream.pix_fmt = _ten_bits(stream.codec_context.codec, stream.pix_fmt)
    stream.time_base = stream.codec_context.time_base = frame.time_base
    stream.codec_context.gop_size = GROUP
    for tag in COLOR_TAGS:
        setattr(stream.codec_context, tag, getattr(source.codec_context, tag))
    if aspect := source.sample_aspect_ratio:
        stream.codec_context.sample_aspect_ratio = 1 / aspect if _turns(frame) % 2 else aspect
    return stream


def _decode(frame: Any) -> Picture:  # noqa: ANN401
    return from_array(_rgb(frame, deep=_is_deep(frame)))


def _beside(picture: Picture, frame: Any) -> tuple[Any, NDArray[Any]]:  # noqa: ANN401
    """Return an enlarged frame's pixels, (H, W, 3) uint8 or uint16, beside the frame that they are of."""
    return frame, picture.color


def _rgb(frame: Any, *, deep: bool) -> NDArray[Any]:  # noqa: ANN401
    """Return a frame, turned upright, as (H, W, 3) RGB of uint8 or uint16.

    Where the clip does not name its color matrix, FFmpeg takes BT.601.
    """
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb48le" if deep else "rgb24"), _turns(frame)))


def _codec(suffix: str) -> tuple[str, int]:
    """Return the encoder of a container, and its default rate factor."""
    return ("libvpx-vp9", 24) if suffix == ".webm" else ("libx264", 16)


def _ten_bits(codec: Any, pixel_format: str) -> str:  # noqa: ANN401
    """Return the 10-bit format of that kind, or the format itself if the encoder knows only 8 bits."""
    deep = f"{pixel_format}10le"
    return deep if deep in {known.name for known in codec.video_formats or ()} else pixel_format


def _is_deep(frame: Any) -> bool:  # noqa: ANN401
    return max((component.bits for component in frame.format.components), default=8) > 8


def _turns(frame: Any) -> int:  # noqa: ANN401
    """Return how many quarter turns to the left bring a frame upright."""
    return round(frame.rotation / 90) % 4


def _frame(av: ModuleType, rgb: NDArray[Any], pixel_format: str, color: Any) -> Any:  # noqa: ANN401
    """Make a frame of the encoder's pixel format from RGB, with the source's color matrix and range."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le" if rgb.dtype == np.uint16 else "rgb24")
    return frame.reformat(
        format=pixel_format,
        dst_colorspace=color.colorspace if color.colorspace not in (0, 2) else None,
        dst_color_range=color.color_range or None,
    )


def _join(av: ModuleType, source: Path, parts: list[Path], path: Path, container_format: str) -> None:
    """Write the groups one after another, and the other streams of the source between them, in order of time."""
    options = {"movflags": "+faststart"} if container_format in ("mp4", "mov") else {}
    with av.open(str(source)) as old, av.open(str(path), "w", format=container_format, options=options) as new:
        new.metadata.update(old.metadata)
        with av.open(str(parts[0])) as first:
            video = new.add_stream_from_template(first.streams.video[0])
            time_base = first.streams.video[0].time_base
        video.time_base = time_base
        for tag in COLOR_TAGS:  # VP9 itself holds two of the four
            setattr(video.codec_context, tag, getattr(old.streams.video[0].codec_context, tag))
        video.metadata.update(old.streams.video[0].metadata)
        copied = {}
        for stream in old.streams:
            if stream.type in ("audio", "subtitle"):
                copied[stream.index] = _copy_of(new, stream, source)
                copied[stream.index].metadata.update(stream.metadata)
        others = (packet for packet in old.demux([old.streams[index] for index in copied]) if packet.dts is not None)
        waiting = next(others, None) if copied else None
        for packet in _packets(av, parts):
            while waiting is not None and _seconds(waiting) <= _seconds(packet):
                waiting.stream = copied[waiting.stream.index]
                new.mux(waiting)
                waiting = next(others, None)
            packet.stream = video
            new.mux(packet)
        while waiting is not None:
            waiting.stream = copied[waiting.stream.index]
            new.mux(waiting)
            waiting = next(others, None)


def _copy_of(new: Any, stream: Any, source: Path) -> Any:  # noqa: ANN401
    """Add a stream for the packets of an old one to the new container."""
    try:
        return new.add_stream_from_template(stream)
    except ValueError as error:
        raise ImageWriteError(
            f"The {stream.type} of {source} ({stream.codec_context.name}) does not fit here ({error}). Use .mkv."
        ) from error


def _packets(av: ModuleType, parts: list[Path]) -> Iterator[Any]:
    for part in parts:
        with av.open(str(part)) as group:
            yield from (packet for packet in group.demux(video=0) if packet.dts is not None)


def _seconds(packet: Any) -> Fraction:  # noqa: ANN401
    return packet.dts * packet.time_base


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(
            f"Video needs PyAV, which cannot be loaded ({error}). Install it with: {install_command('video')}"
        ) from error
    return av

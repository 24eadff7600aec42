"""What a clip holds beside its picture: sound, subtitles, cover, attachments, chapters, and what becomes of each.

A stream is copied packet by packet. Sound that the new container does not hold is transcoded, with a word; subtitles
that it does not hold are an error, before any work. What cannot be kept at all is left out, with a word.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ImageReadError, ImageWriteError

logger = logging.getLogger("ignn")

# PyAV's classes exist only where PyAV is: its containers, streams and packets are `Any` here.

SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Containers that are written, by suffix, with their FFmpeg names."""

READABLE = {**SUFFIXES, ".m4v": "mp4"} | dict.fromkeys(
    (".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"), "matroska"
)
"""Suffixes that are taken for clips, with the container that such a clip is written to where none is named."""

SOUND = {".webm": ("libopus", "Opus", 48_000)}
"""Encoder, name and highest sample rate of sound that must be transcoded, by suffix; elsewhere those of AAC."""

BITS_A_SECOND = 96_000
"""Of one channel of transcoded sound."""

COVER_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""Name and type of a cover in Matroska, which holds it as an attachment."""


@dataclass
class Kept:
    """What becomes of a clip's streams.

    Attributes:
        video: index of the stream that is enlarged.
        copied: indices of streams that are copied.
        transcoded: how sound is transcoded, by index.
        covers: indices of covers that become attachments.
    """

    video: int
    copied: list[int] = field(default_factory=list)
    transcoded: dict[int, Encoder] = field(default_factory=dict)
    covers: list[int] = field(default_factory=list)


def plan_streams(av: ModuleType, container: Any, source: Path, suffix: str) -> Kept:  # noqa: ANN401
    """Decide what becomes of each stream, by writing the header of a container that is thrown away.

    Raises:
        ImageReadError: there is no moving picture.
        ImageWriteError: there are subtitles, or sound, that the container cannot hold.
    """
    moving = [stream for stream in container.streams.video if not _is_cover(av, stream)]
    if not moving:
        raise ImageReadError(f"{source} has no video stream.")
    kept, left_out = Kept(moving[0].index), []
    for stream in container.streams:
        if stream.index == kept.video or _is_of_chapters(container, stream):
            continue
        if stream.type == "video" and not _is_cover(av, stream):
            left_out.append("a second video stream")
        elif stream.type == "video" and suffix == ".mkv" and stream.name in COVER_TYPES:
            kept.covers.append(stream.index)
        elif stream.type == "video" and suffix != ".mp4":  # FFmpeg writes covers to no other
            left_out.append("the cover")
        elif stream.type in ("audio", "subtitle", "video", "attachment") and _fits(av, suffix, stream):
            kept.copied.append(stream.index)
        elif stream.type == "audio" and (encoder := _encoder(av, suffix, stream)) is not None:
            kept.transcoded[stream.index] = encoder
            logger.warning("sound transcoded from %s to %s, which %s holds", stream.name, encoder.name, suffix)
        elif stream.type in ("audio", "subtitle"):
            raise _does_not_fit(av, stream, source, suffix)
        else:
            left_out.append("the cover" if stream.type == "video" else f"a stream of {stream.type}")
    if _has_alpha(moving[0]):
        left_out.append("transparency")
    if left_out:
        logger.warning("left out, as it is not written to %s: %s", suffix, ", ".join(dict.fromkeys(left_out)))
    return kept


def add_streams(av: ModuleType, kept: Kept, old: Any, new: Any) -> dict[int, Copied | Transcoded]:  # noqa: ANN401
    """Add the streams that are kept to a container, with its chapters and tags; return them by their old index."""
    new.metadata.update(old.metadata)
    if chapters := old.chapters():
        new.set_chapters(chapters)
    added: dict[int, Copied | Transcoded] = {}
    for index in kept.copied:
        added[index] = Copied(_copy(new, old.streams[index]))
    for index, encoder in kept.transcoded.items():
        added[index] = Transcoded(old.streams[index], encoder.add_to(new))
    for index in kept.covers:
        name, kind = COVER_TYPES[old.streams[index].name]
        new.add_attachment(name, kind, _first_packet(av, old, index))
    for index, stream in added.items():
        stream.new.metadata.update(old.streams[index].metadata)
        stream.new.disposition = old.streams[index].disposition
    return added


def packets(old: Any, added: dict[int, Copied | Transcoded]) -> Iterator[Any]:  # noqa: ANN401
    """Yield the packets of the added streams, each with its new stream, in the order of the old file."""
    if added:
        for packet in old.demux([old.streams[index] for index in added]):
            yield from added[packet.stream.index].packets(packet)


def seconds(packet: Any) -> Fraction:  # noqa: ANN401
    """Return when a packet is decoded; a cover has no time."""
    time = packet.pts if packet.dts is None else packet.dts
    return (time or 0) * packet.time_base


@dataclass
class Copied:
    """A stream whose packets stay as they are."""

    new: Any

    def packets(self, packet: Any) -> Iterator[Any]:  # noqa: ANN401
        """Yield what becomes of a packet."""
        if packet.dts is not None or packet.size:
            packet.stream = self.new
            yield packet


@dataclass
class Transcoded:
    """Sound that is decoded and encoded again."""

    old: Any
    new: Any

    def packets(self, packet: Any) -> Iterator[Any]:  # noqa: ANN401
        """Yield what becomes of a packet; of the last, which is empty, all that the encoder still holds."""
        for frame in packet.decode():
            yield from self.new.encode(frame)
        if packet.size == 0:
            yield from self.new.encode(None)


@dataclass(frozen=True)
class Encoder:
    """How sound is transcoded."""

    codec: str
    name: str
    rate: int
    layout: str

    def add_to(self, new: Any) -> Any:  # noqa: ANN401
        """Add its stream to a container."""
        stream = new.add_stream(self.codec, rate=self.rate, layout=self.layout)
        stream.codec_context.bit_rate = BITS_A_SECOND * stream.codec_context.layout.nb_channels
        return stream


def _encoder(av: ModuleType, suffix: str, stream: Any) -> Encoder | None:  # noqa: ANN401
    """Return how a stream of sound is transcoded; in stereo where the encoder does not have its layout."""
    if stream.codec_context is None:  # nobody here can decode it
        return None
    codec, name, rate = SOUND.get(suffix, ("aac", "AAC", min(stream.rate, 96_000)))
    for layout in (stream.layout.name, "stereo"):
        encoder = Encoder(codec, name, rate, layout)
        if _is_written(av, suffix, encoder.add_to):
            return encoder
    return None


def _fits(av: ModuleType, suffix: str, stream: Any) -> bool:  # noqa: ANN401
    return _is_written(av, suffix, lambda container: _copy(container, stream))


def _is_written(av: ModuleType, suffix: str, add: Callable[[Any], object]) -> bool:
    """Return whether a container writes its header with what `add` adds to it."""
    container = av.open(io.BytesIO(), "w", format=SUFFIXES[suffix])
    try:
        add(container)
        container.start_encoding()
        return True
    except (ValueError, av.FFmpegError):
        return False
    finally:
        with contextlib.suppress(ValueError, av.FFmpegError):  # some write no file without packets
            container.close()


def _copy(container: Any, stream: Any) -> Any:  # noqa: ANN401
    return container.add_stream_from_template(stream, opaque=True)


def _does_not_fit(av: ModuleType, stream: Any, source: Path, suffix: str) -> ImageWriteError:  # noqa: ANN401
    others = [other for other in SUFFIXES if other != suffix and _fits(av, other, stream)]
    remedy = f"Use {' or '.join(others)}."
    if not others:
        copy = f"{source.stem}-without{source.suffix}"
        remedy = f"Leave it out first: ffmpeg -i '{source}' -map 0 -map -0:{stream.index} -c copy '{copy}'"
    name = "subtitles" if stream.type == "subtitle" else "sound"
    return ImageWriteError(f"The {name} of {source} ({stream.name}) cannot be written to {suffix}. {remedy}")


def _is_cover(av: ModuleType, stream: Any) -> bool:  # noqa: ANN401
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _is_of_chapters(container: Any, stream: Any) -> bool:  # noqa: ANN401
    """Return whether it holds the chapters' names, as in .mp4 and .mov; they are written from the chapters."""
    return stream.type == "data" and stream.name == "bin_data" and bool(container.chapters())


def _has_alpha(stream: Any) -> bool:  # noqa: ANN401
    """Return whether a clip has transparency: in its pixels, or, as in VP8 and VP9, beside them."""
    pixel_format = stream.codec_context.format
    in_pixels = pixel_format is not None and any(component.is_alpha for component in pixel_format.components)
    return in_pixels or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"


def _first_packet(av: ModuleType, old: Any, index: int) -> bytes:  # noqa: ANN401
    """Return the content of a stream that is one picture."""
    with av.open(old.name) as again:
        return next(bytes(packet) for packet in again.demux(again.streams[index]) if packet.size)

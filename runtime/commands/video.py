"""Video by PyAV: every frame enlarged, everything else kept.

Sound, subtitles and the like: `clip_streams.py`. Frames keep their timestamps, so a variable frame rate stays one.
Frames of more than 8 bits are read with 16 and written with 10. Where the container says that the camera was held
sideways, the pixels are turned instead. The clip is encoded in groups of frames, each in a file of its own beside the
output, which become the output at the end: a broken run resumes after the last whole group.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from ..atomic import atomic_path, shortened
from ..clone import install_command
from ..errors import BackendUnavailableError, ImageReadError, ImageWriteError
from ..super_resolver import SuperResolver
from ..tiles.mapping import ResultIterator
from .clip_encoding import GROUP, Encoding, beside, decode, encoding_of, frame_of, in_order, rate_of
from .clip_streams import SUFFIXES, Kept, add_streams, packets, plan_streams, seconds
from .interrupt import run_until_stopped
from .jobs import Job, Outcome

logger = logging.getLogger("ignn")

# PyAV's classes exist only where PyAV is: its containers, streams and frames are `Any` here.

Progress = Callable[[int, int], None]
"""Takes the frames done, and the frames in all or 0 if the file does not say."""


def run(
    jobs: Iterable[Job],
    resolver: SuperResolver,
    *,
    quality: int | None,
    resume: bool,
    finished: Callable[[Job], None],
    progress: Callable[[Job, int, int], None],
) -> Generator[Outcome, None, None]:
    """Enlarge clips, one after the other; arguments as in `upscale_video` and `batch.run`."""

    def enlarge(job: Job, tile_done: Callable[[], None]) -> int:
        return upscale_video(
            resolver,
            job.source,
            job.target,
            quality=quality,
            resume=resume,
            progress=partial(progress, job),
            tile_done=tile_done,
        )

    for job in jobs:
        try:
            pixels = run_until_stopped(partial(enlarge, job), resolver.network.backend.cancel)
            finished(job)
        except Exception as error:
            yield Outcome(job, error)
        else:
            yield Outcome(job, None, pixels)


def upscale_video(
    resolver: SuperResolver,
    source: Path,
    target: Path,
    *,
    quality: int | None = None,
    resume: bool = False,
    progress: Progress = lambda done, total: None,
    tile_done: Callable[[], None] = lambda: None,
) -> int:
    """Enlarge a clip.

    Args:
        source: any video that FFmpeg reads; its first video stream is enlarged.
        target: .mp4, .mov, .mkv (H.264) or .webm (VP9).
        quality: 1 to 100, higher is better, as of pictures; None: the encoder's default.
        resume: go on after the last whole group of an earlier run.
        progress: called after each frame.
        tile_done: called after each tile, in the network's thread; what it raises ends the work.

    Returns:
        The pixels of all frames that were written.

    Raises:
        ImageReadError, ImageWriteError: what cannot be read, what cannot be written.
        BackendUnavailableError: PyAV is not installed.
    """
    av = _av()
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageWriteError(f"Invalid video suffix of {target}. Supported values are {', '.join(SUFFIXES)}.")
    if not source.is_file() or source.stat().st_size == 0:
        raise ImageReadError(f"There is no file {source}, or it is empty.")
    groups = _groups_folder(source, target, f"{resolver.settings} {quality} {av.library_versions}")
    if not resume:
        shutil.rmtree(groups, ignore_errors=True)
    try:
        with av.open(str(source)) as container:
            kept = plan_streams(av, container, source, suffix)
            clip = _Clip(av, resolver, container.streams[kept.video], suffix, quality, progress, tile_done)
            parts = clip.encode(container, groups)
        if clip.encoding is None:
            raise ImageReadError(f"{source} has no frame that can be decoded.")
        with atomic_path(target, error=ImageWriteError) as temporary:
            _join(av, source, kept, clip.encoding, parts, temporary, SUFFIXES[suffix])
    except av.FFmpegError as error:
        raise ImageReadError(f"{source} cannot be enlarged to {target.name}: {error.strerror}.") from error
    except OSError as error:
        raise ImageWriteError(f"Cannot write {target}: {error.strerror or error}. Choose another -o.") from error
    shutil.rmtree(groups)
    return clip.frames_done * clip.encoding.height * clip.encoding.width


def _groups_folder(source: Path, target: Path, settings: str) -> Path:
    """Return the folder of the groups; its name holds a hash of everything that decides what is in them."""
    state = source.stat()
    key = f"{source.resolve()} {state.st_size} {state.st_mtime_ns} {target.suffix} {settings} {GROUP}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return target.parent / f".{shortened(target.name)}.{digest}.ignn-groups"


class _Clip:
    """A clip whose frames are enlarged and encoded, group by group."""

    def __init__(
        self,
        av: ModuleType,
        resolver: SuperResolver,
        stream: Any,  # noqa: ANN401
        suffix: str,
        quality: int | None,
        progress: Progress,
        tile_done: Callable[[], None],
    ) -> None:
        self._av, self._resolver, self._stream = av, resolver, stream
        self._suffix, self._quality = suffix, quality
        self._progress, self._tile_done = progress, tile_done
        self.encoding: Encoding | None = None
        self.frames_done = 0

    def encode(self, container: Any, groups: Path) -> list[Path]:  # noqa: ANN401
        """Encode all frames; return the files of the groups. Those that are there already are kept."""
        self._stream.thread_type = "AUTO"
        parts: list[Path] = []
        frames = self._alike(in_order(container.decode(self._stream), rate_of(self._stream)))
        for first in frames:
            path = groups / f"{len(parts):06}.nut"
            group = chain([first], (frame for _, frame in zip(range(GROUP - 1), frames, strict=False)))
            if path.is_file():
                self.frames_done += sum(1 for _ in group)
                self._tile_done()
            else:
                with atomic_path(path, error=ImageWriteError) as temporary:
                    self._encode_group(group, temporary)
            self._progress(self.frames_done, self._stream.frames)
            parts.append(path)
        return parts

    def _alike(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Yield the frames, all of the first one's size; the first one decides how the clip is encoded."""
        told = False
        for frame in frames:
            if self.encoding is None:
                width, height = frame.width, frame.height
                self.encoding = encoding_of(
                    self._av, self._stream, frame, self._resolver.scale, self._suffix, self._quality
                )
            if (frame.width, frame.height) != (width, height):
                if not told:
                    sizes = (width, height, frame.width, frame.height)
                    logger.warning("the clip changes its size from %d x %d to %d x %d: it stays at the first", *sizes)
                told, pts, time_base = True, frame.pts, frame.time_base
                frame = frame.reformat(width=width, height=height, interpolation="LANCZOS")
                frame.pts, frame.time_base = pts, time_base
            yield frame

    def _encode_group(self, frames: Iterator[Any], path: Path) -> None:
        """Encode a group into a file of its own."""
        assert self.encoding is not None
        with (
            self._av.open(str(path), "w", format="nut") as output,
            ResultIterator(
                self._resolver.network, frames, decode, beside, progress=lambda *_: self._tile_done()
            ) as results,
        ):
            stream = self.encoding.add_to(output)
            for frame, sr in results:
                large = frame_of(self._av, sr, stream.pix_fmt, self._stream.codec_context)
                large.pts, large.time_base = frame.pts, frame.time_base
                output.mux(stream.encode(large))
                self.frames_done += 1
                self._progress(self.frames_done, self._stream.frames)
            output.mux(stream.encode(None))


def _join(
    av: ModuleType, source: Path, kept: Kept, encoding: Encoding, parts: list[Path], path: Path, container_format: str
) -> None:
    """Write the groups one after another, and the other streams of the source between them, in order of time."""
    options = {"movflags": "+faststart"} if container_format in ("mp4", "mov") else {}
    with av.open(str(source)) as old, av.open(str(path), "w", format=container_format, options=options) as new:
        video = encoding.add_to(new)
        video.metadata.update(old.streams[kept.video].metadata)
        others = packets(old, add_streams(av, kept, old, new))
        waiting = next(others, None)
        for packet in _packets(av, parts):
            while waiting is not None and seconds(waiting) <= seconds(packet):
                new.mux(waiting)
                waiting = next(others, None)
            packet.stream = video
            new.mux(packet)
        while waiting is not None:
            new.mux(waiting)
            waiting = next(others, None)


def _packets(av: ModuleType, parts: list[Path]) -> Iterator[Any]:
    for part in parts:
        with av.open(str(part)) as group:
            yield from (packet for packet in group.demux(video=0) if packet.dts is not None)


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(
            f"Video needs PyAV, which cannot be loaded ({error}). Install it with: {install_command('video')}"
        ) from error
    return av

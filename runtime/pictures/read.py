"""Read image files, from disk or from memory."""

from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile as ImageFileType

from ..errors import ImageReadError, ImageTooLargeError
from .picture import Picture, from_pil

logger = logging.getLogger("ignn")

ORIENTATION, WIDTH_TAG, HEIGHT_TAG = 0x0112, 0xA002, 0xA003
"""EXIF tags."""

LAYOUT_TAGS = frozenset(range(254, 347)) - {270, 271, 272, 274, 305, 306, 315, 316} | {
    347,
    512,
    *range(513, 533),
    34675,
}
"""Tags of a TIFF's own directory, which Pillow gives as EXIF, that say how *its* pixels are stored."""

MAX_FRAMES = 10_000
"""Most frames of one animation that are read."""

_limit_lock = threading.Lock()


@dataclass(frozen=True)
class ImageFile:
    """What an image file holds.

    Attributes:
        frames: one picture; several for an animation or a TIFF of several pages.
        durations_ms: how long each frame is shown; empty for what is not an animation.
        loop: how often an animation is shown; 0: for ever.
        format: Pillow's name of the format that was read, such as `JPEG`; None for what was not read.
    """

    frames: list[Picture]
    durations_ms: list[int]
    loop: int = 0
    format: str | None = None


@dataclass(frozen=True)
class _Source:
    """Where an image file lies.

    Attributes:
        name: what errors call it.
        file: its path, or its bytes.
    """

    name: str
    file: Path | bytes

    def open(self) -> ImageFileType:
        """Read the header."""
        return Image.open(io.BytesIO(self.file) if isinstance(self.file, bytes) else self.file)


def read_still(path: Path, *, max_pixels: int | None = None) -> Picture:
    """Read the one picture of a file.

    Raises:
        ImageReadError: missing, empty, truncated, not an image, or more than one frame.
        ImageTooLargeError: more than `max_pixels` pixels, of all frames together (None: twice Pillow's
            `MAX_IMAGE_PIXELS`, as Pillow has it).
    """
    return only_frame(read_file(path, max_pixels=max_pixels), str(path))


def only_frame(content: ImageFile, name: str) -> Picture:
    """Return the one picture of a file.

    Raises:
        ImageReadError: it has more than one frame; the message begins with `name`.
    """
    if len(content.frames) > 1:
        raise ImageReadError(
            f"{name} has {len(content.frames)} frames, and one PIL image is asked for. Use `ignn upscale`."
        )
    return content.frames[0]


def read_file(path: Path, *, max_pixels: int | None = None) -> ImageFile:
    """Read all that an image file holds; the EXIF orientation is applied. Errors as in `read_still`."""
    if not path.exists():
        raise ImageReadError(f"There is no file {path}.")
    if path.is_dir():
        raise ImageReadError(f"{path} is a folder; a file is expected.")
    return _read_source(_Source(str(path), path), path.stat().st_size, max_pixels)


def read_bytes(data: bytes, *, name: str = "The picture", max_pixels: int | None = None) -> ImageFile:
    """Read all that an image file in memory holds, as `read_file` does.

    Args:
        data: the file's content.
        name: what errors call it; it begins their messages.
        max_pixels: largest picture that is decoded; None: Pillow's own limit.

    Raises:
        ImageReadError: empty, truncated, not an image.
        ImageTooLargeError: more than `max_pixels` pixels, of all frames together.
    """
    return _read_source(_Source(name, data), len(data), max_pixels)


def _read_source(source: _Source, size: int, max_pixels: int | None) -> ImageFile:
    name = source.name
    if size == 0:
        raise ImageReadError(f"{name} is empty (0 bytes). Replace it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd metadata and about sizes that are checked here
            with _opened(source, max_pixels) as image:
                return _read(source, image, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{name} is not an image in a format that Pillow reads. Convert it to PNG.") from error
    except (ImageReadError, ImageTooLargeError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name}: {error} If you trust it, raise the limit with --max-pixels.") from error
    except MemoryError as error:
        raise ImageTooLargeError(f"{name} does not fit in memory. Use --stream.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageReadError(
            f"{name} is damaged or truncated ({error or type(error).__name__}). Replace it."
        ) from error


@contextmanager
def _opened(source: _Source, max_pixels: int | None) -> Iterator[ImageFileType]:
    pillow = Image.MAX_IMAGE_PIXELS
    limit = _limit(max_pixels)
    if limit is None or pillow is None or limit <= 2 * pillow:
        image = source.open()
    else:
        # Pillow's limit is global to the process: lift it for this header only, and only if a larger one was asked for.
        with _limit_lock:
            Image.MAX_IMAGE_PIXELS = limit
            try:
                image = source.open()
            finally:
                Image.MAX_IMAGE_PIXELS = pillow
    with image:
        pixels = image.width * image.height
        _check_pixels(source.name, f"{image.width} x {image.height} = ", pixels, limit)
        yield image


def _limit(max_pixels: int | None) -> int | None:
    if max_pixels is not None or Image.MAX_IMAGE_PIXELS is None:
        return max_pixels
    return 2 * Image.MAX_IMAGE_PIXELS


def _check_pixels(name: str, what: str, pixels: int, limit: int | None) -> None:
    if limit is not None and pixels > limit:
        raise ImageTooLargeError(
            f"{name} has {what}{pixels:,} pixels; the limit is {limit:,}. "
            f"If you trust it, give --max-pixels {pixels} (in Python max_pixels={pixels})."
        )


def _read(source: _Source, image: ImageFileType, max_pixels: int | None) -> ImageFile:
    count, limit = getattr(image, "n_frames", 1), _limit(max_pixels)
    if count > MAX_FRAMES:
        raise ImageTooLargeError(f"{source.name} has {count} frames; at most {MAX_FRAMES} are read.")
    if image.format == "MPO":  # a photograph with a preview or a second view behind it
        count = 1
    if count == 1 and (deep := _read_deep_color(source, image, max_pixels)) is not None:
        return ImageFile([_oriented(deep, image)], [], format=image.format)
    frames, durations, pixels = [], [], 0
    for index in range(count):
        image.seek(index)
        # All frames are kept, so all count; those of an animation have one size, pages of a TIFF their own.
        size = image.width * image.height
        pixels += size
        later = 0 if image.format == "TIFF" else (count - index - 1) * size
        _check_pixels(source.name, f"{count} frames with " if count > 1 else "", pixels + later, limit)
        image.load()
        frames.append(_oriented(from_pil(image), image))
        durations.append(round(image.info.get("duration", 100) or 100))
    animated = count > 1 and image.format != "TIFF"
    loop = int(image.info.get("loop", 1 if animated else 0))
    return ImageFile(frames, durations if animated else [], loop, image.format)


def _read_deep_color(source: _Source, image: ImageFileType, max_pixels: int | None) -> Picture | None:
    """Return 16-bit color of PNG and TIFF; None if the file has none.

    Pillow keeps the upper byte of each value only. Decoding a second time, with the byte order turned round, gives the
    lower bytes.
    """
    raw = {tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in image.tile}
    if len(raw) != 1 or not isinstance(mode := raw.pop(), str) or ";16" not in mode or mode.startswith("I"):
        return None
    if mode == "LA;16B":  # 4 bytes a pixel, which is RGBA of 8 bits
        values = _decode(source, "RGBA", max_pixels).astype(np.uint16)
        color: NDArray[Any] = values[..., 0:1] << 8 | values[..., 1:2]
        alpha: NDArray[Any] | None = values[..., 2] << 8 | values[..., 3]
    else:
        order = mode[-1]
        turned = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[order]
        high = _decode(source, mode, max_pixels).astype(np.uint16)
        both = high << 8 | _decode(source, mode[:-1] + turned, max_pixels)
        color = both[..., :3]
        alpha = both[..., 3] if both.shape[2] == 4 else None
    return Picture(color, alpha, icc=image.info.get("icc_profile"), exif=image.info.get("exif"))


def _decode(source: _Source, raw_mode: str, max_pixels: int | None) -> NDArray[np.uint8]:
    with _opened(source, max_pixels) as image:
        image.tile = [
            tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
            for tile in image.tile
        ]
        image.load()
        return np.asarray(image)


def _oriented(picture: Picture, image: Image.Image) -> Picture:
    """Apply the EXIF orientation and set the tag to upright, so that nobody applies it again."""
    try:
        exif = image.getexif()
        orientation = exif.get(ORIENTATION, 1)
        if not exif:
            return replace(picture, exif=None)
        if orientation in range(2, 9):
            picture = replace(
                picture,
                color=_turned(picture.color, orientation),
                alpha=None if picture.alpha is None else _turned(picture.alpha, orientation),
            )
        if ORIENTATION in exif:
            exif[ORIENTATION] = 1
        if image.format == "TIFF":
            for tag in LAYOUT_TAGS.intersection(exif):
                del exif[tag]
            if not exif:
                return replace(picture, exif=None)
        return replace(picture, exif=exif.tobytes())
    except Exception as error:  # a damaged EXIF block must not cost the picture
        logger.warning("EXIF left out: it is damaged (%s)", error)
        return replace(picture, exif=None)


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (2 to 8)."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)

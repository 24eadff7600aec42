"""Read image files, from disk or from memory."""

from __future__ import annotations

import errno
import logging
import stat
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile as ImageFileType

from ..errors import IgnnError, ImageReadError, ImageTooLargeError, InvalidImageError
from .avif import check_coding
from .deep import is_deep, read_deep_color
from .frames import MAX_FRAMES, Frames, frames_of, of_one_size
from .notes import facts_of, with_notes
from .picture import ImageFile, Picture, from_pil, transparent_grey
from .readers import reader_of
from .source import Source

logger = logging.getLogger("ignn")

_OF_THE_SYSTEM = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE)
"""Refusals that are no fault of the file's content."""


_UNKNOWN_KIND = (
    "unsupported",
    "unimplemented",
    "not implemented",
    "not supported",
    "cannot find loader",
    "unable to locate",
)
"""What Pillow says of kinds of file that it cannot decode, or not without another program."""


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
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise ImageReadError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise ImageReadError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageReadError(f"{path} is a folder; a file is expected.")
    return _read_source(Source(str(path), path, max_pixels), status.st_size)


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
    return _read_source(Source(name, data, max_pixels), len(data))


def _read_source(source: Source, size: int) -> ImageFile:
    name = source.name
    if size == 0:
        raise ImageReadError(f"{name} is empty (0 bytes). Replace it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd metadata and about sizes that are checked here
            if (reader := reader_of(source)) is not None:
                return reader(source)
            with source.opened() as image:
                if image.format == "AVIF":
                    check_coding(source)
                return _read(source, image)
    except InvalidImageError as error:
        raise ImageReadError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageReadError(f"{name} is not an image in a format that Pillow reads. Convert it to PNG.") from error
    except IgnnError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name}: {error} If you trust it, raise the limit with --max-pixels.") from error
    except MemoryError as error:
        raise ImageTooLargeError(f"{name} does not fit in memory. Use --stream.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
            raise ImageReadError(f"{name} cannot be read: {error.strerror}.") from error
        if _is_ours(error):
            raise
        if any(word in str(error).lower() for word in _UNKNOWN_KIND):
            raise ImageReadError(
                f"{name} is of a kind that Pillow does not read ({error}). Convert it to PNG."
            ) from error
        raise ImageReadError(
            f"{name} is damaged or truncated ({error or type(error).__name__}). Replace it."
        ) from error


def _is_ours(error: Exception) -> bool:
    """Return whether our own code raised it: a defect, which is no fault of the file."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__package__") == __package__


def _read(source: Source, image: ImageFileType) -> ImageFile:
    which = frames_of(image, source.name)
    count = len(which.indexes)
    if count > MAX_FRAMES:
        raise ImageTooLargeError(f"{source.name} has {count} frames; at most {MAX_FRAMES} are read.")
    frames, durations, pixels = [], [], 0
    for index in which.indexes:
        if which.animated or which.pages:
            image.seek(index)
        # All frames are kept, so all count; those of an animation have one size, pages of a TIFF their own.
        size = image.width * image.height
        pixels += size
        later = 0 if which.pages else (which.indexes[-1] - index) * size
        source.check(f"{count} frames with " if count > 1 else "", pixels + later)
        frames.append(_read_frame(source, image, index, which))
        durations.append(round(image.info.get("duration", 100) or 100))
    if not which.animated:
        return ImageFile(frames, [], format=image.format)
    return ImageFile(of_one_size(frames), durations, which.loop, image.format)


def _read_frame(source: Source, image: ImageFileType, index: int, which: Frames) -> Picture:
    """Return the frame that the image is at."""
    deep = None if which.animated else read_deep_color(source, image, index)
    if deep is not None:
        return with_notes(deep, facts_of(image, source), source.name, turned=True)
    if which.animated and index == which.indexes[0] and is_deep(image):
        logger.warning("%s: animations of 16 bits a channel are read with 8", source.name)
    hidden = transparent_grey(image)
    image.load()
    if hidden is not None:
        image.info["transparency"] = hidden
    return with_notes(from_pil(image), facts_of(image, source), source.name)

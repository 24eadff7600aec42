"""Write image files, to disk or into memory, in the format that the suffix names."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ImageColor

from ..atomic import atomic_path
from ..errors import ImageWriteError, UsageError
from .color import PQ, to_srgb
from .encode import JPEG_MOST_BYTES, Encoding, encode
from .notes import resized
from .picture import Picture, flattened, in_type
from .read import ImageFile

logger = logging.getLogger("ignn")


@dataclass(frozen=True)
class Format:
    """What a format of image files can hold.

    Attributes:
        pillow: Pillow's name of it.
        notes: what it holds beside the pixels: attributes of `Picture`. `comment`: of the texts, the one of that name.
        alpha, animation, pages: whether it holds transparency, frames with durations, pages.
        types: the types of values that it holds.
        quality: the default of `WriteOptions.quality`; None if it has none.
        most_pixels_a_side: largest height and width.
    """

    pillow: str
    notes: tuple[str, ...] = ()
    alpha: bool = False
    animation: bool = False
    pages: bool = False
    types: tuple[str, ...] = ("uint8",)
    quality: int | None = None
    most_pixels_a_side: int = 1 << 31


_PNG = Format(
    "PNG",
    ("icc", "coding", "exif", "xmp", "text", "dpi"),
    alpha=True,
    animation=True,
    types=("uint8", "uint16"),
)
_TIFF = Format(
    "TIFF", ("icc", "exif", "xmp", "iptc", "dpi"), alpha=True, pages=True, types=("uint8", "uint16", "float32")
)
_JPEG = Format("JPEG", ("icc", "exif", "xmp", "iptc", "comment", "dpi"), quality=95, most_pixels_a_side=65_500)
_WEB = ("icc", "exif", "xmp")
FORMATS = {
    ".png": _PNG,
    ".apng": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", _WEB, alpha=True, animation=True, quality=92, most_pixels_a_side=16_383),
    ".avif": Format("AVIF", _WEB, alpha=True, animation=True, quality=85, most_pixels_a_side=65_536),
    ".gif": Format("GIF", ("comment",), alpha=True, animation=True, most_pixels_a_side=65_535),
    ".bmp": Format("BMP", ("dpi",)),
    ".pfm": Format("PFM", types=("float32",)),
}
"""Formats that are written, by suffix."""

_NOTES = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "text": "text", "dpi": "the resolution"}
"""What people call what is said beside the pixels."""


@dataclass(frozen=True)
class WriteOptions:
    """What the user may choose about a file that is written.

    Attributes:
        quality: 1 to 100, of JPEG, WebP and AVIF; None: the format's default.
        lossless: lossless WebP.
        background: color that replaces transparency (a CSS name or #rrggbb); None: keep transparency.
    """

    quality: int | None = None
    lossless: bool = False
    background: str | None = None

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"Invalid quality ({self.quality}). Supported values are 1 to 100.")
        if self.background is not None:
            try:
                ImageColor.getrgb(self.background)
            except ValueError as error:
                raise UsageError(f"Invalid background ({self.background!r}). Give a name or #rrggbb.") from error

    @property
    def background_rgb(self) -> tuple[int, int, int] | None:
        """The background as RGB 0..255."""
        if self.background is None:
            return None
        red, green, blue = ImageColor.getrgb(self.background)[:3]
        return red, green, blue


def format_of(path: Path) -> Format:
    """Return the format that a path's suffix names.

    Raises:
        ImageWriteError: no such format.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise ImageWriteError(
            f"Invalid output suffix ({path.suffix or 'none'!s}) of {path}. Supported values are {', '.join(FORMATS)}."
        ) from None


def write_file(content: ImageFile, path: Path, options: WriteOptions | None = None) -> None:
    """Write pictures to a file, which is whole or absent at any moment.

    Raises:
        ImageWriteError: the format cannot hold this, or the disk cannot.
    """
    options = options or WriteOptions()
    target = format_of(path)
    frames = _checked(content, str(path), target, options)
    with atomic_path(path, error=ImageWriteError) as temporary, temporary.open("w+b") as file:
        _encode(file, frames, content, str(path), target, options)


def write_bytes(
    content: ImageFile, suffix: str, options: WriteOptions | None = None, *, name: str = "the result"
) -> bytes:
    """Return the content of the image file that `write_file` would write.

    Args:
        content: what to write.
        suffix: the format, by its suffix, such as `.png`.
        options: how to write.
        name: what errors call the file.

    Raises:
        ImageWriteError: the format cannot hold this, or there is no such format.
    """
    options = options or WriteOptions()
    target = format_of(Path(f"{name}{suffix}"))
    file = io.BytesIO()
    try:
        _encode(file, _checked(content, name, target, options), content, name, target, options)
    except OSError as error:  # of an encoder: there is no disk
        raise ImageWriteError(f"Cannot write {name} as {target.pillow}: {error}. Choose another suffix.") from error
    return file.getvalue()


def suffix_of_format(pillow: str | None) -> str:
    """Return the suffix of the format that Pillow calls so (`ImageFile.format`); `.png` for one that is not written."""
    if pillow == "MPO":  # a JPEG with a preview behind it
        pillow = "JPEG"
    return next((suffix for suffix, target in FORMATS.items() if target.pillow == pillow), ".png")


def check_held(content: ImageFile, target: Format, name: str, options: WriteOptions, *, scale: int = 1) -> None:
    """Raise where a format cannot hold pictures `scale` times as large as these: before the work, not after it.

    Args:
        content: what is enlarged.
        target: the format.
        name: what errors call the file.
        options: how it will be written.
        scale: of the network.

    Raises:
        ImageWriteError: the format cannot hold this.
    """
    if len(content.frames) > 1 and not (target.animation if content.durations_ms else target.pages):
        holders = [suffix for suffix, f in FORMATS.items() if (f.animation if content.durations_ms else f.pages)]
        raise ImageWriteError(
            f"{name}: {target.pillow} holds one picture, the input has {len(content.frames)}. Use {', '.join(holders)}."
        )
    if options.lossless and target.quality is not None and target.pillow != "WEBP":
        raise ImageWriteError(f"{target.pillow} is not written without loss. Use .png, .tif or .webp for --lossless.")
    for picture in content.frames:
        height, width = (side * scale for side in picture.color.shape[:2])
        if max(height, width) > target.most_pixels_a_side:
            raise ImageWriteError(
                f"{name}: {target.pillow} holds at most {target.most_pixels_a_side} pixels a side, the result has "
                f"{width} x {height}. Use .png or .tif."
            )
        if _is_transparent(picture) and not target.alpha and options.background is None:
            raise ImageWriteError(
                f"{name}: {target.pillow} holds no transparency. Give --background white (or another), or use .png."
            )
        if picture.coding is not None and "coding" not in target.notes:
            raise ImageWriteError(
                f"{name}: the picture has HDR colors ({'PQ' if picture.coding.transfer == PQ else 'HLG'}), which are "
                f"not written to {target.pillow}. Use .png."
            )


def _is_transparent(picture: Picture) -> bool:
    return picture.alpha is not None and bool(picture.alpha.min() < picture.maximum)


def _checked(content: ImageFile, name: str, target: Format, options: WriteOptions) -> list[Picture]:
    """Return the frames as the format takes them. Raises as `check_held`."""
    check_held(content, target, name, options)
    animated = len(content.frames) > 1 and bool(content.durations_ms)
    return [_prepared(frame, name, target, options, animated=animated) for frame in content.frames]


def _encode(
    file: BinaryIO, frames: list[Picture], content: ImageFile, name: str, target: Format, options: WriteOptions
) -> None:
    quality = None if target.quality is None else options.quality or target.quality
    durations = tuple(content.durations_ms) if len(frames) > 1 else ()
    try:
        encode(file, target.pillow, frames, Encoding(quality, options.lossless, durations, content.loop))
    except (ValueError, TypeError, KeyError, RuntimeError, struct.error) as error:
        raise ImageWriteError(f"Cannot write {name} as {target.pillow}: {error}. Choose another suffix.") from error


def _prepared(picture: Picture, name: str, target: Format, options: WriteOptions, *, animated: bool) -> Picture:
    if options.background_rgb is not None:
        picture = flattened(picture, options.background_rgb)
    if picture.alpha is not None and not target.alpha:
        picture = replace(picture, alpha=None)
    return with_notes_held(_in_type(picture, Path(name).name, target, animated=animated), Path(name).name, target)


def _in_type(picture: Picture, name: str, target: Format, *, animated: bool) -> Picture:
    """Return the picture in the best type that the format holds; say so where that is less than it has."""
    own = str(picture.color.dtype)
    types = ("uint8",) if animated else target.types  # animations are Pillow's, which has 8 bits
    if own in types:
        return picture
    if types == ("float32",):
        return in_type(picture, np.dtype(np.float32))
    bits = 16 if "uint16" in types else 8
    what = f"an animation of {target.pillow}" if animated and target.types != types else target.pillow
    logger.warning("%s: reduced to %d bits a channel, which is what %s holds", name, bits, what)
    return in_type(picture, np.dtype(np.uint16 if bits == 16 else np.uint8))


def with_notes_held(picture: Picture, name: str, target: Format) -> Picture:
    """Return the picture with what the format holds beside its pixels, brought up to date; say what is left out."""
    grey_profile = picture.icc is not None and picture.icc[16:20] == b"GRAY"
    if picture.icc and ("icc" not in target.notes or (grey_profile and target.pillow == "WEBP")):  # WebP is never grey
        picture = _in_srgb(picture, name, target)
    picture = resized(picture, name)
    lost: dict[str, Any] = {}
    for note in _NOTES:
        value = getattr(picture, note)
        if note == "text" and "comment" in target.notes:
            kept: Any = tuple(entry for entry in value if entry[0] == "Comment")
        else:
            kept = value if note in target.notes else type(value)() if note == "text" else None
        if target.pillow == "JPEG" and isinstance(kept, bytes) and len(kept) > JPEG_MOST_BYTES:
            kept = None
        if kept != value:
            lost[note] = kept
    if lost:
        words = " and ".join(_NOTES[note] for note in lost)
        logger.warning("%s: %s left out, which %s does not hold", name, words, target.pillow)
    return replace(picture, **lost)


def _in_srgb(picture: Picture, name: str, target: Format) -> Picture:
    """Return a picture of a profile in sRGB."""
    assert picture.icc is not None
    color = to_srgb(picture.color, picture.icc) if picture.color.dtype == np.uint8 else None
    if color is None:
        logger.warning("%s: the ICC profile is left out, which %s does not hold", name, target.pillow)
        return replace(picture, icc=None)
    return replace(picture, color=color, icc=None)

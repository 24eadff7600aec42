"""Write image files, to disk or into memory, in the format that the suffix names."""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageColor

from ..atomic import atomic_path
from ..errors import ImageWriteError, UsageError
from .picture import Picture, eight_bits, flattened, to_pil
from .png import write_deep_png
from .read import HEIGHT_TAG, WIDTH_TAG, ImageFile

logger = logging.getLogger("ignn")


@dataclass(frozen=True)
class Format:
    """What a format of image files can hold.

    Attributes:
        pillow: Pillow's name of it.
        alpha, animation, pages: whether it holds transparency, frames with durations, pages.
        deep: whether it holds 16 bits a channel.
        quality: the default of `WriteOptions.quality`; None if it has none.
        most_pixels_a_side: largest height and width.
    """

    pillow: str
    alpha: bool = False
    animation: bool = False
    pages: bool = False
    deep: bool = False
    quality: int | None = None
    most_pixels_a_side: int = 1 << 31


FORMATS = {
    ".png": Format("PNG", alpha=True, animation=True, deep=True),
    ".apng": Format("PNG", alpha=True, animation=True, deep=True),
    ".tif": Format("TIFF", alpha=True, pages=True, deep=True),
    ".tiff": Format("TIFF", alpha=True, pages=True, deep=True),
    ".jpg": Format("JPEG", quality=95, most_pixels_a_side=65_500),
    ".jpeg": Format("JPEG", quality=95, most_pixels_a_side=65_500),
    ".webp": Format("WEBP", alpha=True, animation=True, quality=92, most_pixels_a_side=16_383),
    ".avif": Format("AVIF", alpha=True, animation=True, quality=85, most_pixels_a_side=65_536),
    ".gif": Format("GIF", alpha=True, animation=True, most_pixels_a_side=65_535),
    ".bmp": Format("BMP"),
}
"""Formats that are written, by suffix."""


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


def _checked(content: ImageFile, name: str, target: Format, options: WriteOptions) -> list[Picture]:
    """Return the frames as the format takes them."""
    frames = [_prepared(frame, name, target, options) for frame in content.frames]
    if len(frames) > 1 and not (target.animation if content.durations_ms else target.pages):
        holders = [suffix for suffix, f in FORMATS.items() if (f.animation if content.durations_ms else f.pages)]
        raise ImageWriteError(
            f"{name}: {target.pillow} holds one picture, the input has {len(frames)}. Use {', '.join(holders)}."
        )
    return frames


def _encode(
    file: BinaryIO, frames: list[Picture], content: ImageFile, name: str, target: Format, options: WriteOptions
) -> None:
    try:
        if target.deep and frames[0].color.dtype == np.uint16 and len(frames) == 1:
            (write_deep_png if target.pillow == "PNG" else _write_deep_tiff)(file, frames[0])
        else:
            _write_pillow(file, frames, content, target, options)
    except (ValueError, TypeError, KeyError, RuntimeError, struct.error) as error:
        raise ImageWriteError(f"Cannot write {name} as {target.pillow}: {error}. Choose another suffix.") from error


def _prepared(picture: Picture, name: str, target: Format, options: WriteOptions) -> Picture:
    height, width = picture.color.shape[:2]
    if max(height, width) > target.most_pixels_a_side:
        raise ImageWriteError(
            f"{name}: {target.pillow} holds at most {target.most_pixels_a_side} pixels a side, the result has "
            f"{width} x {height}. Use .png or .tif."
        )
    if options.background_rgb is not None:
        picture = flattened(picture, options.background_rgb)
    if picture.alpha is not None and not target.alpha:
        if picture.alpha.min() < picture.maximum:
            raise ImageWriteError(
                f"{name}: {target.pillow} holds no transparency. Give --background white (or another), or use .png."
            )
        picture = replace(picture, alpha=None)
    if picture.color.dtype != np.uint8 and not target.deep:
        logger.warning("%s: reduced to 8 bits a channel, which is what %s holds", Path(name).name, target.pillow)
        picture = eight_bits(picture)
    return replace(picture, exif=_resized_exif(picture))


def _resized_exif(picture: Picture) -> bytes | None:
    """Return the EXIF block with the new size and without the old thumbnail."""
    if picture.exif is None:
        return None
    exif = Image.Exif()
    try:
        exif.load(picture.exif)
        inner = exif.get_ifd(0x8769)
        for tag, value in ((WIDTH_TAG, picture.color.shape[1]), (HEIGHT_TAG, picture.color.shape[0])):
            if tag in inner:
                inner[tag] = value
        return exif.tobytes()
    except Exception as error:  # a damaged EXIF block must not cost the picture
        logger.warning("EXIF left out: it is damaged (%s)", error)
        return None


def _write_pillow(
    file: BinaryIO, frames: list[Picture], content: ImageFile, target: Format, options: WriteOptions
) -> None:
    if len(frames) > 1 and content.durations_ms:
        images = _alike([to_pil(eight_bits(frame)) for frame in frames])
    else:
        images = [to_pil(frame) for frame in frames]
    if target.pillow == "GIF":
        images = [_with_sharp_alpha(image) for image in images]
    arguments: dict[str, Any] = {}
    if target.quality is not None:
        arguments["quality"] = target.quality if options.quality is None else options.quality
    if target.pillow == "JPEG":
        arguments["subsampling"] = 0  # 4:4:4: chroma detail is part of what was asked for
    if target.pillow == "WEBP":
        arguments |= {"lossless": options.lossless, "exact": True, "method": 4}
    elif options.lossless and target.quality is not None:
        raise ImageWriteError(f"{target.pillow} is not written without loss. Use .png, .tif or .webp for --lossless.")
    if target.pillow == "TIFF":
        # Pillow writes EXIF directories into TIFF without compression only.
        arguments["compression"] = None if _has_directories(frames[0].exif) else "tiff_adobe_deflate"
    if frames[0].icc and target.pillow not in ("GIF", "BMP"):
        arguments["icc_profile"] = frames[0].icc
    if frames[0].exif and target.pillow not in ("GIF", "BMP"):
        arguments["exif"] = frames[0].exif
    if len(images) > 1:
        arguments |= {"save_all": True, "append_images": images[1:]}
        if content.durations_ms:
            arguments["duration"] = content.durations_ms
            if target.pillow == "GIF":
                if content.loop != 1:  # GIF counts how often it is shown again, and is silent about once
                    arguments["loop"] = max(content.loop - 1, 0)
                if images[0].mode == "RGBA":
                    arguments["disposal"] = 2
            else:
                arguments["loop"] = content.loop
    first = images[0]
    for image in images:
        image.info.pop("exif", None)
    first.save(file, target.pillow, **arguments)


def _with_sharp_alpha(image: Image.Image) -> Image.Image:
    """Return the image with each pixel opaque or transparent: GIF holds no more, and Pillow takes 1 of 255 for all."""
    if image.mode not in ("LA", "RGBA"):
        return image
    image.putalpha(image.getchannel("A").point(lambda value: 255 if value >= 128 else 0))
    return image


def _has_directories(block: bytes | None) -> bool:
    if block is None:
        return False
    exif = Image.Exif()
    exif.load(block)
    return any(tag in exif for tag in (0x8769, 0x8825, 0xA005))


def _alike(images: list[Image.Image]) -> list[Image.Image]:
    """Return an animation's frames in one mode."""
    modes = {image.mode for image in images}
    if len(modes) == 1:
        return images
    mode = "RGBA" if modes & {"LA", "RGBA"} else "RGB"
    return [image.convert(mode) for image in images]


def _write_deep_tiff(file: BinaryIO, picture: Picture) -> None:
    """Write a 16-bit TIFF, which Pillow cannot write in color."""
    import tifffile

    color, alpha = picture.color, picture.alpha
    values = color if alpha is None else np.concatenate([color, alpha[..., None]], axis=2)
    if picture.exif:
        logger.warning("EXIF left out: it is not written to 16-bit TIFF")
    tifffile.imwrite(
        file,
        values[..., 0] if values.shape[2] == 1 else values,
        photometric="minisblack" if picture.is_grey else "rgb",
        extrasamples=None if alpha is None else ["unassalpha"],
        compression="zlib",
        iccprofile=picture.icc,
        metadata=None,
    )

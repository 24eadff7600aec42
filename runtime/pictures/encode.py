"""Encode pictures that are as their format takes them: pixels, and what is said beside them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from . import exif as tags
from .picture import Picture, to_pil
from .png import note_chunks, write_deep_png

JPEG_MOST_BYTES = 65_500
"""Most bytes of one block in a JPEG, less the words in front of it."""


@dataclass(frozen=True)
class Encoding:
    """How pictures are encoded.

    Attributes:
        quality: 1 to 100; None where the format has none.
        lossless: lossless WebP.
        durations_ms: how long each frame of an animation is shown; empty for what is none.
        loop: how often an animation is shown; 0: for ever.
    """

    quality: int | None = None
    lossless: bool = False
    durations_ms: tuple[int, ...] = ()
    loop: int = 0


def encode(file: BinaryIO, pillow: str, frames: list[Picture], how: Encoding) -> None:
    """Write pictures to a file that is open for reading and writing.

    Args:
        file: where to.
        pillow: Pillow's name of the format, or PFM.
        frames: one picture, the frames of an animation, or pages.
        how: the rest.

    Raises:
        OSError, ValueError, TypeError, KeyError, RuntimeError, struct.error: of the libraries.
    """
    if pillow == "TIFF":
        _write_tiff(file, frames)
    elif pillow == "PFM":
        _write_pfm(file, frames[0])
    elif pillow == "PNG" and frames[0].color.dtype == np.uint16:
        write_deep_png(file, frames[0])
    else:
        _write_pillow(file, pillow, frames, how)


def _write_pillow(file: BinaryIO, pillow: str, frames: list[Picture], how: Encoding) -> None:
    images = _alike([to_pil(frame) for frame in frames]) if how.durations_ms else [to_pil(frames[0])]
    if pillow == "GIF":
        images = [_with_sharp_alpha(image) for image in images]
    arguments: dict[str, Any] = _NOTES[pillow](frames[0])
    if how.quality is not None:
        arguments["quality"] = how.quality
    if pillow == "JPEG":
        arguments["subsampling"] = 0  # 4:4:4: chroma detail is part of what was asked for
    if pillow == "WEBP":
        arguments |= {"lossless": how.lossless, "exact": True, "method": 4}
    if len(images) > 1:
        arguments |= {"save_all": True, "append_images": images[1:], "duration": list(how.durations_ms)}
        if pillow != "GIF":
            arguments["loop"] = how.loop
        elif how.loop != 1:  # GIF counts how often it is shown again, and is silent about once
            arguments["loop"] = max(how.loop - 1, 0)
        if pillow == "GIF" and images[0].mode == "RGBA":
            # Pillow's smaller palettes, which `optimize` means, lose the transparent color of some later frames.
            arguments |= {"disposal": 2, "optimize": False}
    for image in images:
        image.info.clear()  # Pillow writes some of it by itself
    images[0].save(file, pillow, **arguments)


def _png_notes(picture: Picture) -> dict[str, Any]:
    info = PngInfo()
    for kind, data in note_chunks(picture):
        info.add(kind, data)
    return {"pnginfo": info, **_present(icc_profile=picture.icc, exif=picture.exif, dpi=picture.dpi)}


def _jpeg_notes(picture: Picture) -> dict[str, Any]:
    extra = b""
    if picture.iptc:
        resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(picture.iptc)) + picture.iptc
        data = b"Photoshop 3.0\0" + resource + bytes(len(resource) % 2)
        extra = b"\xff\xed" + struct.pack(">H", len(data) + 2) + data
    arguments = _web_notes(picture) | _gif_notes(picture) | _present(dpi=picture.dpi, extra=extra)
    if "xmp" not in arguments:
        arguments["xmp"] = b""
    return arguments


def _web_notes(picture: Picture) -> dict[str, Any]:
    return _present(icc_profile=picture.icc, exif=picture.exif, xmp=picture.xmp)


def _avif_notes(picture: Picture) -> dict[str, Any]:
    arguments = _web_notes(picture)
    if picture.exif:  # Pillow would take the orientation out, and encode all again
        arguments["exif"] = tags.without_orientation(picture.exif).removeprefix(tags.PREFIX)
    return arguments


def _gif_notes(picture: Picture) -> dict[str, Any]:
    comment = next((text for key, text in picture.text if key == "Comment"), "")
    return _present(comment=comment.encode())


def _bmp_notes(picture: Picture) -> dict[str, Any]:
    return _present(dpi=picture.dpi)


_NOTES: dict[str, Callable[[Picture], dict[str, Any]]] = {
    "PNG": _png_notes,
    "JPEG": _jpeg_notes,
    "WEBP": _web_notes,
    "AVIF": _avif_notes,
    "GIF": _gif_notes,
    "BMP": _bmp_notes,
}
"""What Pillow is told beside the pixels, by format."""


def _present(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value}


def _with_sharp_alpha(image: Image.Image) -> Image.Image:
    """Return the image with each pixel opaque or transparent: GIF holds no more, and Pillow takes 1 of 255 for all."""
    if image.mode not in ("LA", "RGBA"):
        return image
    image.putalpha(image.getchannel("A").point(lambda value: 255 if value >= 128 else 0))
    return image


def _alike(images: list[Image.Image]) -> list[Image.Image]:
    """Return an animation's frames in one mode."""
    modes = {image.mode for image in images}
    if len(modes) == 1:
        return images
    mode = "RGBA" if modes & {"LA", "RGBA"} else "RGB"
    return [image.convert(mode) for image in images]


def _write_tiff(file: BinaryIO, pages: list[Picture]) -> None:
    import tifffile

    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            values = page.color if page.alpha is None else np.concatenate([page.color, page.alpha[..., None]], axis=2)
            writer.write(values[..., 0] if values.shape[2] == 1 else values, **tiff_options(page))
    tags.add_to_tiff(file, tiff_entries(pages[0]))


def tiff_options(picture: Picture) -> dict[str, Any]:
    """Return what tifffile's writer is told beside the pixels."""
    return {
        "photometric": "minisblack" if picture.is_grey else "rgb",
        "extrasamples": None if picture.alpha is None else ["unassalpha"],
        "planarconfig": None if picture.is_grey and picture.alpha is None else "contig",
        "compression": "zlib",
        "iccprofile": picture.icc,
        "resolution": picture.dpi,
        "resolutionunit": None if picture.dpi is None else "inch",
        "software": False,
        "metadata": None,
    }


def tiff_entries(picture: Picture) -> tuple[tags.Entry, ...]:
    """Return the entries of a TIFF's directory that hold EXIF, XMP and IPTC."""
    entries = [
        entry
        for entry in (tags.entries_of(picture.exif) if picture.exif else ())
        if entry.tag not in tags.LAYOUT_TAGS and entry.tag != tags.ORIENTATION
    ]
    for tag, kind, data in ((tags.XMP, 1, picture.xmp), (tags.IPTC, 7, picture.iptc)):
        if data:
            entries.append(tags.Entry(tag, kind, len(data), data))
    return tuple(entries)


def _write_pfm(file: BinaryIO, picture: Picture) -> None:
    """Write a portable float map: little-endian rows, the last one first."""
    height, width = picture.color.shape[:2]
    file.write(f"{'Pf' if picture.is_grey else 'PF'}\n{width} {height}\n-1.0\n".encode())
    file.write(picture.color[::-1].astype("<f4").tobytes())

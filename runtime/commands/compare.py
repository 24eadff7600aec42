"""`ignn compare`: put pictures side by side, enlarged where they differ most."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import InvalidImageError, UsageError
from ..pictures import psnr as metrics
from ..pictures.picture import LUMA, Picture, eight_bits, flattened, from_pil
from ..pictures.read import ImageFile, read_file, read_still
from ..pictures.write import write_file

CROP, ZOOM, MARGIN, LINE = 96, 3, 8, 18
"""Side of a crop in pixels, its enlargement, space around it, height of a line of text."""

BACKGROUND, INK, MARK = (250, 250, 250), (20, 20, 20), (230, 30, 30)


@dataclass(frozen=True)
class Entry:
    """One picture of a sheet: label and (H, W, 3) uint8."""

    label: str
    rgb: NDArray[np.uint8]


def entry(label: str, picture: Picture) -> Entry:
    """Return the entry of a decoded picture; transparency is shown on white."""
    color = eight_bits(flattened(picture, (255, 255, 255))).color
    return Entry(label, np.repeat(color, 3, axis=2) if picture.is_grey else color)


def bicubic(label: str, picture: Picture, size: tuple[int, int]) -> Entry:
    """Return the entry of a picture enlarged to `size` (width, height) by Pillow's bicubic filter."""
    small = entry(label, picture)
    return Entry(label, np.asarray(Image.fromarray(small.rgb).resize(size, Image.Resampling.BICUBIC)))


def psnr_db(a: Entry, b: Entry) -> float:
    """Return the PSNR of luma (BT.601, 0..255 range, all pixels) in dB; infinite for equal pictures."""
    return metrics.psnr_db(_luma(a), _luma(b))


def largest_difference(entries: list[Entry], crop: int) -> tuple[int, int]:
    """Return the upper left corner (x, y) of the crop x crop square in which the pictures differ most."""
    planes = np.stack([_luma(item) for item in entries])
    spread = planes.max(axis=0) - planes.min(axis=0)
    height, width = spread.shape
    rows, columns = min(crop, height), min(crop, width)
    sums = np.pad(spread.cumsum(0, dtype=np.float64).cumsum(1), ((1, 0), (1, 0)))
    boxes = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    y, x = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return int(x), int(y)


def sheet(entries: list[Entry], *, crop: int = CROP, zoom: int = ZOOM, psnr: bool = True) -> Image.Image:
    """Return a sheet of pictures: the first one whole, then each one's crop where they differ most.

    Args:
        entries: two or more pictures of one size; the first is the reference.
        crop: side of the crops in pixels.
        zoom: how many times the crops are enlarged.
        psnr: whether each crop tells the PSNR to the reference.

    Raises:
        InvalidImageError: fewer than two pictures, or pictures of different sizes.
    """
    if len(entries) < 2:
        raise InvalidImageError("Nothing to compare: two pictures or more are needed.")
    sizes = {item.rgb.shape[1::-1] for item in entries}
    if len(sizes) > 1:
        shown = ", ".join(f"{item.label} {item.rgb.shape[1]} x {item.rgb.shape[0]}" for item in entries)
        raise InvalidImageError(
            f"Pictures of different sizes cannot be compared: {shown}. "
            "For a small one give --bicubic SMALL, which enlarges it to the size of the others."
        )
    (width, height) = sizes.pop()
    x, y = largest_difference(entries, crop)
    box = (x, y, min(x + crop, width), min(y + crop, height))
    shown_width, shown_height = (box[2] - box[0]) * zoom, (box[3] - box[1]) * zoom
    overview = Image.fromarray(entries[0].rgb)
    factor = shown_height / height
    overview = overview.resize((max(1, round(width * factor)), shown_height), Image.Resampling.LANCZOS)
    corners = (x * factor, y * factor, box[2] * factor - 1, box[3] * factor - 1)
    ImageDraw.Draw(overview).rectangle(corners, outline=MARK, width=2)

    tiles = [(overview, f"{width} x {height}", f"marked: {zoom}x, at ({x}, {y})")]
    for index, item in enumerate(entries):
        part = Image.fromarray(item.rgb).crop(box).resize((shown_width, shown_height), Image.Resampling.NEAREST)
        against = "reference" if index == 0 else f"{psnr_db(entries[0], item):.2f} dB to {entries[0].label}"
        tiles.append((part, item.label, against if psnr else ""))
    font = ImageFont.load_default(13)
    widths = [max(tile.width, *(round(font.getlength(text)) for text in texts)) for tile, *texts in tiles]
    result = Image.new(
        "RGB", (sum(widths) + MARGIN * (len(tiles) + 1), shown_height + 2 * LINE + 3 * MARGIN), BACKGROUND
    )
    draw = ImageDraw.Draw(result)
    left = MARGIN
    for column, (tile, *texts) in zip(widths, tiles, strict=True):
        result.paste(tile, (left, MARGIN))
        for line, text in enumerate(texts):
            draw.text((left, shown_height + 2 * MARGIN + line * LINE), text, fill=INK, font=font)
        left += column + MARGIN
    return result


def write_sheet(image: Image.Image, path: Path) -> None:
    """Write a sheet, whole or not at all."""
    write_file(ImageFile([from_pil(image)], []), path)


def main(argv: list[str]) -> int:
    """Run `ignn compare`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ignn compare",
        description="Put pictures of the same size side by side, enlarged where they differ most, with the PSNR of "
        "luma to the first one.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="the first one is the reference")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="SHEET", help="the sheet, e.g. sheet.png")
    parser.add_argument("--bicubic", type=Path, metavar="SMALL", help="add this small picture, enlarged by bicubic")
    parser.add_argument("--crop", type=int, default=CROP, help="side of the crops in pixels (default %(default)s)")
    parser.add_argument("--zoom", type=int, default=ZOOM, help="enlargement of the crops (default %(default)s)")
    arguments = parser.parse_args(argv)
    for name, most in (("crop", 4096), ("zoom", 32)):
        if not 1 <= getattr(arguments, name) <= most:
            raise UsageError(f"Invalid --{name} ({getattr(arguments, name)}). Supported values are 1 to {most}.")
    entries = [entry(path.name, read_still(path)) for path in arguments.pictures]
    if arguments.bicubic is not None:
        small = read_file(arguments.bicubic).frames[0]
        entries.append(bicubic("bicubic", small, (entries[0].rgb.shape[1], entries[0].rgb.shape[0])))
    result = sheet(entries, crop=arguments.crop, zoom=arguments.zoom)
    write_sheet(result, arguments.output)
    sys.stdout.write(f"{arguments.output}: {result.width} x {result.height}\n")
    for item in entries[1:]:
        sys.stdout.write(f"  {item.label}: {psnr_db(entries[0], item):.2f} dB to {entries[0].label}\n")
    return 0


def _luma(item: Entry) -> NDArray[np.float32]:
    return item.rgb.astype(np.float32) @ LUMA

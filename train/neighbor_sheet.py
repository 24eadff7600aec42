"""Draw what the graph found for one place of a photograph, as in the paper's figure 1 (`ignn neighbors`)."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from runtime.cli import run_command
from runtime.errors import UsageError
from train.checkpoint import load_checkpoint
from train.config import PATCH, STRIDE
from train.data import read_rgb
from train.figures import sheet_format, side_by_side, write_sheet
from train.metrics import to_uint8
from train.model import IGNN

MODEL = Path(__file__).resolve().parent / "weights" / "ignn-s-x2.pt"
_MARGIN = 6
"""Pixels shown around a 3 x 3 patch; s times as many around a large one."""
_CELL = 120
"""Side of one patch on the sheet, in pixels."""
_GRAY, _CONTRAST = 128, 4
"""How an error is shown: no error, and the factor on it."""
_RED, _YELLOW = (230, 30, 30), (255, 210, 0)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Neighbors:
    """What the graph found for one query patch; places are (row, column) of the upper left pixel, nearest first."""

    query: tuple[int, int]
    """Of the 3 x 3 patch in the image."""
    keys: list[tuple[int, int]]
    """Of each neighbor's 3 x 3 patch in the reduced image; s times that is its large patch's place in the image."""
    weights: dict[str, list[float]]
    """Each neighbor's weights at the patch's middle. Of GraphAgg "LR" and "HR", of its two edge-conditioned networks,
    which add up to 1 each; of a graph of errors "error", which add up to what the neighbors are trusted."""
    reduced: Pixels
    """The image reduced by s, (H // s, W // s, 3) uint8 RGB, [0, 255]."""
    lent: Pixels
    """What large patches are cut from, (H, W, 3) uint8: the image, or its errors, as gray + 4 times the error."""


@torch.inference_mode()
def find(net: IGNN, image: Pixels, x: int, y: int) -> Neighbors:
    """Find the neighbors of the query patch around a pixel.

    Args:
        net: a network with GraphAgg or a graph of errors.
        image: (H, W, 3) uint8 RGB, what the network would enlarge.
        x, y: column and row of the pixel.
    """
    config = net.config
    H, W = image.shape[:2]
    least = config.minimum_size
    lr = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    lr = F.pad(lr, (0, max(0, least - W), 0, max(0, least - H)), mode="replicate")
    reduced, lent = net.reduce(lr), lr
    if config.graph == "errors":
        _, errors, features, index, edge = net.find_errors(lr)
        lent = _GRAY + _CONTRAST * errors
        maps = {"error": net.errors.find(errors, features, index, edge)[1]}
    else:
        index, edge = net.find_neighbors(lr, reduced)
        maps = dict(zip(("LR", "HR"), net.gcn.neighbor_weights(edge, *lr.shape[-2:]), strict=True))
    # Patch i covers pixels 2 i to 2 i + 2: the one whose middle is nearest.
    i, j = (min(max(place - 1, 0) // STRIDE, count - 1) for place, count in zip((y, x), index.shape[1:3], strict=True))
    columns = reduced.shape[3] // STRIDE
    keys = [(STRIDE * (number // columns), STRIDE * (number % columns)) for number in index[0, i, j].tolist()]
    middle = (0, slice(None), STRIDE * i + 1, STRIDE * j + 1)
    weights = {name: weight[middle].tolist() for name, weight in maps.items()}
    pictures = [to_uint8(picture[0].permute(1, 2, 0).numpy()) for picture in (reduced, lent)]
    return Neighbors((STRIDE * i, STRIDE * j), keys, weights, pictures[0], pictures[1][:H, :W])


def draw(image: Pixels, found: Neighbors, scale: int) -> Image.Image:
    """Return the sheet: the image with the query (red) and the large patches (yellow), then every patch enlarged.

    Upper row: the query, and its neighbors in the reduced image. Lower row: the weighted sum of what the large patches
    lend, and what each lends: itself, or the backbone's error there.
    """
    large = [(scale * row, scale * column) for row, column in found.keys]
    patches = {"query": _patch(image, found.query, 1)}
    for number, key in enumerate(found.keys, 1):
        patches[f"{number}: in the reduced"] = _patch(found.reduced, key, 1)
    lent = [_cut(found.lent, place, scale).astype(np.float64) for place in large]
    zero = _GRAY if "error" in found.weights else 0
    of_hr = [*found.weights.values()][-1]
    mean = zero + sum(weight * (patch - zero) for weight, patch in zip(of_hr, lent, strict=True))
    patches["their weighted sum"] = _framed(to_uint8(np.asarray(mean)), scale)
    for number, place in enumerate(large, 1):
        patches[f"{number}: {_weights(found, number)}"] = _patch(found.lent, place, scale)
    details = side_by_side(patches, columns=len(found.keys) + 1)
    overview = _overview(image, found, large, scale, details.width)
    sheet = Image.new("RGB", (details.width, overview.height + details.height + 4), "white")
    sheet.paste(overview, (0, 0))
    sheet.paste(details, (0, overview.height + 4))
    return sheet


def _weights(found: Neighbors, number: int, digits: int = 2) -> str:
    return ", ".join(f"{weights[number - 1]:.{digits}f} {name}" for name, weights in found.weights.items())


def _overview(image: Pixels, found: Neighbors, large: list[tuple[int, int]], scale: int, width: int) -> Image.Image:
    factor = width / image.shape[1]
    picture = Image.fromarray(image).resize((width, max(1, round(factor * image.shape[0]))), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for number, (row, column) in enumerate(large, 1):
        right, bottom = _box(pen, row, column, PATCH * scale, factor, _YELLOW)
        pen.text((right + 2, bottom - 8), str(number), fill=_YELLOW, stroke_width=1, stroke_fill="black")
    _box(pen, *found.query, PATCH, factor, _RED)
    return picture


def _box(pen: ImageDraw.ImageDraw, row: int, column: int, side: int, factor: float, color: tuple[int, int, int]
         ) -> tuple[float, float]:  # fmt: skip
    """Draw a patch's outline, at least 5 pixels wide; return its lower right corner."""
    spread = max(0.0, (5 - side * factor) / 2)
    left, top = column * factor - spread, row * factor - spread
    right, bottom = left + side * factor + 2 * spread, top + side * factor + 2 * spread
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
    pen.rectangle((left, top, right, bottom), outline=color)
    return right, bottom


def _patch(image: Pixels, place: tuple[int, int], scale: int) -> Pixels:
    return _framed(_cut(image, place, scale), scale)


def _cut(image: Pixels, place: tuple[int, int], scale: int) -> Pixels:
    """Return the patch of 3 s x 3 s pixels with its margin; pixels beyond the border repeat it."""
    around = np.arange(-_MARGIN * scale, (PATCH + _MARGIN) * scale)
    rows, columns = (
        (start + around).clip(0, size - 1) for start, size in zip(place, image.shape[:2], strict=True)
    )  # fmt: skip
    return image[rows[:, None], columns]


def _framed(patch: Pixels, scale: int) -> Pixels:
    """Enlarge a patch with its margin to a cell, without interpolation, and outline the patch in red."""
    cell = Image.fromarray(patch).resize((_CELL, _CELL), Image.Resampling.NEAREST)
    side = _CELL / (PATCH + 2 * _MARGIN)
    corners = (_MARGIN * side - 1, _MARGIN * side - 1, (_MARGIN + PATCH) * side, (_MARGIN + PATCH) * side)
    ImageDraw.Draw(cell).rectangle(corners, outline=_RED)
    return np.asarray(cell)


def _place(text: str, image: Pixels) -> tuple[int, int]:
    height, width = image.shape[:2]
    numbers = re.fullmatch(r"(\d{1,6}),(\d{1,6})", text)
    x, y = map(int, numbers.groups()) if numbers else (-1, -1)
    if not (0 <= x < width and 0 <= y < height):
        raise UsageError(
            f"Invalid --at ({text}). Give X,Y: a column from 0 to {width - 1} and a row from 0 to {height - 1} of the "
            f"image, e.g. --at {width // 2},{height // 2}"
        )
    return x, y


def main(argv: list[str] | None = None) -> int:
    """Write the sheet of one place, and print its neighbors (`ignn neighbors`)."""
    parser = argparse.ArgumentParser(prog="ignn neighbors", description=__doc__)
    parser.add_argument("image", type=Path, help="photograph as the network would enlarge it")
    parser.add_argument("--at", required=True, metavar="X,Y", help="pixel of the photograph: column, row")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT", help="picture to write")
    parser.add_argument("--model", type=Path, default=MODEL, metavar="CHECKPOINT", help="default: ignn-s-x2's weights")
    arguments = parser.parse_args(argv)
    sheet_format(arguments.output)
    image = read_rgb(arguments.image)
    x, y = _place(arguments.at, image)
    net = load_checkpoint(arguments.model)
    if net.config.graph not in ("graphagg", "errors"):
        raise UsageError(
            f"Invalid --model ({arguments.model}): its graph is {net.config.graph!r}. Give a network with graphagg or "
            "errors: --model train/weights/ignn-e-x2.pt"
        )
    found, scale = find(net, image, x, y), net.config.graph_scale
    sheet = draw(image, found, scale)
    query_row, query_column = found.query
    sys.stdout.write(f"query: 3 x 3 pixels at {query_column},{query_row}\n")
    for number, (row, column) in enumerate(found.keys, 1):
        side = PATCH * scale
        weights = _weights(found, number, 3)
        sys.stdout.write(f"{side} x {side} at {scale * column},{scale * row}: weight {weights}\n")
    write_sheet(sheet, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.neighbor_sheet", main))

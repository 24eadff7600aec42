"""Pictures of what the graph does: GraphAgg* (paper section 3.2) and feature maps (paper figure 5)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from runtime.atomic import atomic_path
from runtime.errors import UsageError
from train.checkpoint import load_checkpoint
from train.config import IGNNConfig
from train.data import read_rgb
from train.embedding import VGGEmbedding
from train.errors import CheckpointError
from train.metrics import to_uint8
from train.model import IGNN
from train.neighbors import fold_neighbors
from train.ops import windowed_knn
from train.resize import downsample_bicubic, upsample_uint8

_CAPTION_HEIGHT, _GAP = 16, 4


@torch.inference_mode()
def graphagg_star(lr: Tensor, embedding: VGGEmbedding, *, scale: int, neighbors: int, window: int) -> Tensor:
    """Upscale an image without learning: average the neighbors' patches of the image itself (paper section 3.2).

    Args:
        lr: (N, 3, H, W) RGB 0..255.
        embedding: VGG19's, what patches are matched in.
        scale: 2 or 3.
        neighbors: patches k averaged for each query.
        window: search window d in key patches.

    Returns:
        (N, 3, scale * H, scale * W).
    """
    H, W = lr.shape[-2:]
    least = IGNNConfig(scale=scale, neighbors=neighbors, window=window).minimum_size
    lr = F.pad(lr, (0, max(0, least - W), 0, max(0, least - H)), mode="replicate")
    lr_down = downsample_bicubic(lr, scale).clamp(0, 255)
    index, _ = windowed_knn(embedding(lr), embedding(lr_down), neighbors, window, scale)
    total = sum(fold_neighbors(lr, neighbor, scale) for neighbor in index.unbind(-1))
    assert isinstance(total, Tensor)
    return (total / neighbors)[..., : scale * H, : scale * W]


@torch.inference_mode()
def feature_maps(net: IGNN, lr: Tensor) -> dict[str, Tensor]:
    """Return maps (C, height, width) before and after aggregation, by their captions.

    Args:
        net: a network with GraphAgg.
        lr: (1, 3, H, W) RGB 0..255.
    """
    maps: dict[str, Tensor] = {}
    layers = {"before GraphAgg": net.body1, "fused at LR": net.fuse_b, "upsampled": net.upsample, "fused": net.fuse_up}
    handles = [
        layer.register_forward_hook(lambda _, __, output, name=name: maps.__setitem__(name, output[0]))
        for name, layer in layers.items()
    ]
    handles.append(
        net.gcn.register_forward_hook(
            lambda _, __, output: maps.update({"aggregated at LR": output[0][0], "aggregated at HR": output[1][0]})
        )
    )
    try:
        net(lr)
    finally:
        for handle in handles:
            handle.remove()
    order = ("before GraphAgg", "aggregated at LR", "fused at LR", "upsampled", "aggregated at HR", "fused")
    return {name: maps[name] for name in order}


def _mean_response(features: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mean absolute response as an RGB picture, between its 1st and 99th percentile."""
    response = features.abs().mean(0)
    low, high = (
        float(response.quantile(q)) if response.numel() < 2**24 else float(response.max() * q) for q in (0.01, 0.99)
    )
    gray = to_uint8(((response - low) / max(high - low, 1e-12)).mul(255).cpu().numpy())
    resized = Image.fromarray(gray).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized.convert("RGB"))


def side_by_side(pictures: dict[str, NDArray[np.uint8]], columns: int) -> Image.Image:
    """Return captioned pictures (HWC uint8, all of one size) in rows of `columns`."""
    height, width = next(iter(pictures.values())).shape[:2]
    rows = -(-len(pictures) // columns)
    cell_height, cell_width = height + _CAPTION_HEIGHT, width + _GAP
    sheet = Image.new("RGB", (columns * cell_width - _GAP, rows * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, picture) in enumerate(pictures.items()):
        left, top = number % columns * cell_width, number // columns * cell_height
        draw.text((left + 2, top + 2), caption, fill="black")
        sheet.paste(Image.fromarray(picture), (left, top + _CAPTION_HEIGHT))
    return sheet


def sheet_format(path: Path) -> str:
    """Return Pillow's name of the format that a file name asks for.

    Raises:
        UsageError: Pillow writes no such format.
    """
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in Image.SAVE:
        raise UsageError(f"Invalid output ({path}). Give a file name that ends in .png, .webp or .jpg.")
    return name


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all, and say so.

    Raises:
        UsageError: Pillow writes no such format.
        WriteError: the file cannot be written.
    """
    picture_format = sheet_format(path)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format=picture_format)
    sys.stdout.write(f"{path}: {sheet.width} x {sheet.height}\n")


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def _graphagg_star(arguments: argparse.Namespace) -> None:
    lr = read_rgb(arguments.image)
    net = load_checkpoint(arguments.model)
    tensor = graphagg_star(
        _to_tensor(lr), net.embedding, scale=arguments.scale, neighbors=arguments.neighbors, window=arguments.window
    )
    pictures = {
        f"bicubic x{arguments.scale}": upsample_uint8(lr, arguments.scale),
        f"GraphAgg* x{arguments.scale} (no learning)": to_uint8(tensor[0].permute(1, 2, 0).numpy()),
    }
    write_sheet(side_by_side(pictures, columns=2), Path(arguments.output))


def _feature_maps(arguments: argparse.Namespace) -> None:
    net, lr = load_checkpoint(arguments.model), read_rgb(arguments.image)
    if net.config.graph != "graphagg":
        raise CheckpointError(
            f"Model {arguments.model} has no GraphAgg (graph = {net.config.graph!r}). Give a network that has one."
        )
    size = (net.config.graph_scale * lr.shape[0], net.config.graph_scale * lr.shape[1])
    pictures = {name: _mean_response(features, size) for name, features in feature_maps(net, _to_tensor(lr)).items()}
    write_sheet(side_by_side(pictures, columns=3), Path(arguments.output))


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"ignn {command}", description=description)
    parser.add_argument("image", help="LR image, in anything Pillow reads")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="picture to write")
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="checkpoint (.pt, .pth)")
    return parser


def graphagg_star_main(argv: list[str] | None = None) -> int:
    """Upscale an image by GraphAgg*, its picture beside bicubic's (`ignn graphagg-star`)."""
    parser = _parser(
        "graphagg-star", "Upscale without learning: average k patches of the image itself, matched by VGG19."
    )
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3))
    parser.add_argument("--neighbors", type=int, default=5, metavar="K", help="patches averaged (default: 5)")
    parser.add_argument("--window", type=int, default=30, metavar="D", help="search window in patches (default: 30)")
    _graphagg_star(parser.parse_args(argv))
    return 0


def feature_maps_main(argv: list[str] | None = None) -> int:
    """Draw the features before and after aggregation (`ignn feature-maps`)."""
    _feature_maps(_parser("feature-maps", "Draw mean responses before and after GraphAgg.").parse_args(argv))
    return 0

"""Measure what a network makes of its graph, as Markdown: how much the fusions read of it, how evenly the neighbors are
weighted, and what the neighbors are worth without any learning (`ignn graph-report`)."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from runtime.cli import run_command
from runtime.errors import UsageError
from train.checkpoint import load_checkpoint
from train.data import list_images, make_lr, read_rgb
from train.figures import graphagg_star
from train.lending import EQUAL_TRUST, lent_errors, tiles_that_neighbors_win
from train.metrics import psnr, to_uint8
from train.model import IGNN
from train.resize import upsample_uint8

WHOLE_IMAGE = 1_000_000
"""A search window that is larger than any image."""


def fusion_norms(net: IGNN) -> dict[str, tuple[float, float]]:
    """Return, by fusion, the norms of the weights that read the backbone and of those that read the graph.

    A network without a graph has none, one of the same-scale graph has `fuse_b` alone.
    """
    norms = {}
    for name in ("fuse_b", "fuse_up"):
        if hasattr(net, name):
            weight = cast(nn.Conv2d, net.get_submodule(f"{name}.0.0")).weight.detach()
            backbone, graph = weight.chunk(2, dim=1)
            norms[name] = (float(backbone.norm()), float(graph.norm()))
    return norms


def graph_shares(net: IGNN) -> dict[str, float]:
    """Return, by fusion, the graph's share of the norm of the weights: 0 is none, 1 is all."""
    return {name: graph / math.hypot(backbone, graph) for name, (backbone, graph) in fusion_norms(net).items()}


@torch.inference_mode()
def weight_entropy(net: IGNN, lr: Tensor) -> tuple[float, float]:
    """Return the mean entropy of the neighbors' weights in f_lr and f_hr, over log k: 1 is all alike, 0 is one alone.

    Args:
        net: a network with GraphAgg.
        lr: (1, 3, H, W) RGB 0..255.
    """
    _, edge = net.find_neighbors(lr, net.reduce(lr))
    maps = net.gcn.neighbor_weights(edge, *lr.shape[-2:])
    lr_entropy, hr_entropy = (
        float(-torch.xlogy(weight, weight).sum(1).mean()) / math.log(net.config.neighbors) for weight in maps
    )
    return lr_entropy, hr_entropy


def report(net: IGNN, paths: list[Path], windows: list[int]) -> str:
    """Return the tables on a network with GraphAgg.

    Args:
        net: a network with GraphAgg, of scale 2 or 3 if there are windows.
        paths: HR images; they are reduced by the network's scale.
        windows: search windows to try GraphAgg* with, in key patches.
    """
    lines = ["| fusion | norm of the weights on the backbone | on the graph | graph's share |", "|---|---|---|---|"]
    shares = graph_shares(net)
    for name, (backbone, graph) in fusion_norms(net).items():
        lines.append(f"| `{name}` | {backbone:.3f} | {graph:.3f} | {shares[name]:.3f} |")
    scale = net.config.scale
    entropies, scores, won = [], [], []
    for path in tqdm(paths, unit="image", leave=False, disable=None):
        lr, hr, tensor, truth = _pair(path, scale)
        entropies.append(weight_entropy(net, tensor))
        if scale == net.config.graph_scale:
            won.append(tiles_that_neighbors_win(net, tensor, truth))
        pictures = [upsample_uint8(lr, scale)] if windows else []
        for window in windows:
            sr = graphagg_star(tensor, net.embedding, scale=scale, neighbors=net.config.neighbors, window=window)
            pictures.append(to_uint8(sr[0].permute(1, 2, 0).numpy()))
        scores.append([psnr(picture, hr, scale) for picture in pictures])
    if entropies:
        lines += ["", f"| weights of | entropy over log k, mean of {len(paths)} images |", "|---|---|"]
        for name, value in zip(("f_lr", "f_hr"), np.mean(entropies, axis=0), strict=True):
            lines.append(f"| `{name}` | {value:.3f} |")
    if entropies and windows:
        lines += ["", "| without learning | PSNR on Y, dB | above bicubic, on images |", "|---|---|---|"]
        names = ["bicubic", *(f"GraphAgg*, window {_shown(window)}" for window in windows)]
        for name, values in zip(names, np.transpose(scores), strict=True):
            above = sum(value > row[0] for value, row in zip(values, scores, strict=True))
            lines.append(f"| {name} | {np.mean(values):.2f} | {above} of {len(paths)} |")
    if won:
        lines += [
            "",
            f"| patches of {net.config.neighbors} neighbors | PSNR of the first, dB | tiles nearer to the truth than "
            "the network's | the best of all, above the network, dB |",
            "|---|---|---|---|",
        ]
        for name, (first, share, gain) in zip(("found", "drawn at random"), np.mean(won, axis=0), strict=True):
            lines.append(f"| {name} | {first:.2f} | {share:.1%} | {gain:.2f} |")
    return "\n".join(lines) + "\n"


def report_errors(net: IGNN, paths: list[Path]) -> str:
    """Return the table on a network whose neighbors lend errors: each image, and the mean.

    Args:
        net: a network of graph "errors".
        paths: HR images; they are reduced by the network's scale.
    """
    lines = [
        f"| image | correlation | backbone, dB | with {EQUAL_TRUST} of the neighbors' mean error | projected back "
        "alone | network | trust |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = []
    for path in tqdm(paths, unit="image", leave=False, disable=None):
        _, hr, tensor, _ = _pair(path, net.config.scale)
        rows.append(lent_errors(net, tensor, hr))
        lines.append(_error_row(path.stem, rows[-1]))
    if rows:
        lines.append(_error_row(f"mean of {len(rows)}", np.mean(rows, axis=0)))
    return "\n".join(lines) + "\n"


def _error_row(name: str, values: Sequence[float] | NDArray[np.float64]) -> str:
    return f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |"


def _pair(path: Path, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Tensor, Tensor]:
    """Return LR and HR of an image, as arrays and as tensors (1, 3, H, W)."""
    lr, hr = make_lr(read_rgb(path), scale)
    small, large = (torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() for image in (lr, hr))
    return lr, hr, small, large


def _shown(window: int) -> str:
    return "the whole image" if window >= WHOLE_IMAGE else str(window)


def main(argv: list[str] | None = None) -> int:
    """Print the report (`ignn graph-report`)."""
    parser = argparse.ArgumentParser(prog="ignn graph-report", description=__doc__)
    parser.add_argument("model", type=Path, metavar="CHECKPOINT", help="a network with a graph")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="HR images; none: the weights' norms alone")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images by name")
    parser.add_argument("--window", type=int, action="append", default=[], metavar="D", help="try GraphAgg* (no "
                        "learning) with this search window; 0: the whole image; may be repeated")  # fmt: skip
    arguments = parser.parse_args(argv)
    net = load_checkpoint(arguments.model)
    if net.config.graph not in ("graphagg", "errors") or not net.config.ecn:
        raise UsageError(f"Invalid model ({arguments.model}). It must have graph = 'graphagg' with ecn, or 'errors', "
                         f"and has graph = {net.config.graph!r}, ecn = {net.config.ecn}.")  # fmt: skip
    if net.config.graph == "errors" and (arguments.window or not arguments.data):
        raise UsageError("A graph of errors is reported on images: give --data FOLDER, and no --window.")
    if arguments.window and (net.config.scale == 4 or not arguments.data):
        raise UsageError("Invalid --window: GraphAgg* needs --data FOLDER, and a network of scale 2 or 3.")
    if min(arguments.window, default=0) < 0 or (arguments.limit is not None and arguments.limit < 1):
        raise UsageError("Invalid --window or --limit: a window is 0 or more, a limit at least 1.")
    if arguments.data and not arguments.data.is_dir():
        raise UsageError(f"Folder {arguments.data} does not exist. Give a folder of HR images, e.g. Urban100.")
    paths = list_images(arguments.data)[: arguments.limit] if arguments.data else []
    if net.config.graph == "errors":
        sys.stdout.write(report_errors(net, paths))
        return 0
    sys.stdout.write(report(net, paths, [window or WHOLE_IMAGE for window in arguments.window]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.graph_report", main))

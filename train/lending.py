"""What neighbors have to lend: their patches beside the network's own output, and the backbone's errors one scale
below."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from train.config import STRIDE, IGNNConfig
from train.graph_agg import ADAPN_EPS
from train.metrics import LUMA, psnr, to_uint8
from train.model import IGNN
from train.ops import adapn_gather, key_statistics, window_sides

_TILE = 6
"""Side of the tiles in which neighbors and network are compared, in HR pixels: a patch of 3 x 3 at scale 2."""
EQUAL_TRUST = 0.3
"""Sum of the weights of neighbors that are all trusted alike."""


@torch.inference_mode()
def tiles_that_neighbors_win(net: IGNN, lr: Tensor, hr: Tensor) -> list[tuple[float, float, float]]:
    """Return what the neighbors' patches of the image itself know that the network does not.

    Every neighbor's patches are folded by AdaPN into a picture of its own, as the network folds their features. Then
    tiles of 6 x 6 pixels of these pictures and of the network's output are compared with the truth, on luma.

    Args:
        net: a network with GraphAgg, of scale 2 or 3.
        lr, hr: (1, 3, H, W) and (1, 3, scale * H, scale * W) RGB 0..255.

    Returns:
        twice, of the nearest neighbors and of patches drawn from the search window (what chance gives): PSNR of the
        nearest neighbor's picture in dB; the share of tiles in which one of the k is nearer to the truth than the
        network; and how many dB the network would gain if someone who knows the truth chose each tile from all of them.
    """
    scale = net.config.graph_scale
    nearest, _ = net.find_neighbors(lr, net.reduce(lr))
    drawn = _random_neighbors(nearest, lr.shape[-2] // scale // STRIDE, lr.shape[-1] // scale // STRIDE, net.config)
    statistics, own = key_statistics(lr, scale, ADAPN_EPS), _tile_errors(net(lr).clamp(0, 255), hr)
    rows = []
    for index in (nearest, drawn):
        lent = [adapn_gather(lr, *statistics, neighbor, scale, ADAPN_EPS) for neighbor in index.unbind(-1)]
        others = [_tile_errors(picture, hr) for picture in lent]
        best = torch.stack(others).amin(0)
        gain = 10 * float((own.mean() / torch.minimum(own, best).mean()).log10())
        first = 10 * math.log10(255**2 / float(others[0].mean()))
        rows.append((first, float((best < own).float().mean()), gain))
    return rows


@torch.inference_mode()
def lent_errors(net: IGNN, lr: Tensor, hr: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return what the errors one scale below are worth.

    Args:
        net: a network of graph "errors".
        lr: (1, 3, H, W) RGB 0..255, no smaller than `config.minimum_size`.
        hr: HWC uint8, the truth.

    Returns:
        correlation, on luma, of the neighbors' mean error with what the backbone lacks of the truth; PSNR in dB of the
        backbone, of the backbone with 0.3 of that mean, of the backbone with back-projection alone, and of the network;
        and the mean sum of the weights that the network gives its neighbors.
    """
    sr, errors, features, index, edge = net.find_errors(lr)
    lent, weights = net.errors.find(errors, features, index, edge)
    mean = torch.stack(lent).mean(0)
    truth = torch.from_numpy(hr.astype(np.float32)).permute(2, 0, 1)[None]
    lacking, of_mean = _luma(truth - sr), _luma(mean)
    correlation = float((of_mean * lacking).sum() / (of_mean.norm() * lacking.norm()))
    corrected = net.project_back(sr + net.errors.correct(lent, weights), lr)
    pictures = (sr, sr + EQUAL_TRUST * mean, net.project_back(sr, lr), corrected)
    scores = [psnr(to_uint8(_picture(picture)), hr, net.config.scale) for picture in pictures]
    return correlation, *scores, float(weights.sum(1).mean())


def _picture(x: Tensor) -> NDArray[np.float32]:
    return cast(NDArray[np.float32], x[0].permute(1, 2, 0).numpy())


def _luma(difference: Tensor) -> Tensor:
    """Return a difference of RGB (N, 3, H, W) on luma (N, 1, H, W)."""
    return (difference * torch.from_numpy(LUMA).float().view(1, 3, 1, 1)).sum(1, keepdim=True)


def _random_neighbors(index: Tensor, rows: int, columns: int, config: IGNNConfig) -> Tensor:
    """Return neighbors drawn from the same search windows, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    sides = window_sides(config.window, rows, columns)
    for axis, keys, side in zip((1, 2), (rows, columns), sides, strict=True):
        first = (torch.arange(index.shape[axis]) // config.graph_scale - side // 2).clamp(0, keys - side)
        first = first.view([-1 if dimension == axis else 1 for dimension in range(4)])
        drawn.append(first + torch.randint(side, index.shape, generator=generator))
    return (drawn[0] * columns + drawn[1]).int()


def _tile_errors(picture: Tensor, hr: Tensor) -> Tensor:
    """Return the mean squared error on luma of each whole tile."""
    return functional.avg_pool2d(_luma(picture - hr).square(), _TILE)

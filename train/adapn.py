"""AdaPN, computed: the statistics of patches, their fold, and the gradients. `train.ops` says what they mean.

Features are held channels last here, as pixels (N, H', W', 1, C) and as blocks (N, h', w', s*s, C): the s x s features
that one key pixel names; both zero padded to odd sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import PATCH, STRIDE

OFFSETS = [(row, column) for row in range(PATCH) for column in range(PATCH)]


def key_statistics(features: Tensor, scale: int, eps: float) -> tuple[Tensor, Tensor]:
    """Compute `train.ops.key_statistics`."""
    return _patch_statistics(_blocks(_channels_last(features), scale), eps)


def key_statistics_gradient(
    features: Tensor, scale: int, eps: float, mean_gradient: Tensor, std_gradient: Tensor
) -> Tensor:
    """Return the gradient of `key_statistics` in the features, in their type."""
    channels_last = _channels_last(features)
    gradient = torch.zeros_like(channels_last)
    blocks = _blocks(channels_last, scale)
    _add_blocks(gradient, _statistics_gradient(blocks, eps, mean_gradient, std_gradient), scale)
    return gradient.permute(0, 3, 1, 2).to(features.dtype)


class _AdaPN(NamedTuple):
    """AdaPN of every query's neighbor: z * gain + shift per query and channel, so that no patch has to exist.

    Statistics of keys are taken at each query's neighbor; all are (N, m1, m2, C).
    """

    pixels: Tensor
    blocks: Tensor
    neighbor: Tensor
    """Number of each query's neighbor among the flattened key patches of the batch, (N * m1 * m2)."""
    query_mean: Tensor
    query_std: Tensor
    key_mean: Tensor
    key_std: Tensor
    gain: Tensor
    shift: Tensor


def _adapn(features: Tensor, means: Tensor, stds: Tensor, index: Tensor, scale: int, eps: float) -> _AdaPN:
    N, C = features.shape[:2]
    channels_last = _channels_last(features)
    pixels = _pad_to_odd(channels_last).unsqueeze(3)
    blocks = _blocks(channels_last, scale)
    query_mean, query_std = _patch_statistics(pixels, eps)
    patches = means.shape[1] * means.shape[2]
    neighbor = (index.long() + torch.arange(N, device=index.device).view(N, 1, 1) * patches).flatten()
    key_mean, key_std = (x.reshape(-1, C).index_select(0, neighbor).view_as(query_mean) for x in (means, stds))
    gain = query_std / key_std
    return _AdaPN(
        pixels, blocks, neighbor, query_mean, query_std, key_mean, key_std, gain, query_mean - gain * key_mean
    )


def fold(features: Tensor, key_mean: Tensor, key_std: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    """Compute `train.ops.adapn_gather`."""
    N, C, H, W = features.shape
    m1, m2 = index.shape[1:]
    x = _adapn(features, key_mean, key_std, index, scale, eps)
    blocks, gain, shift = x.blocks, x.gain, x.shift
    corner, rows = _corners(index, blocks), blocks.view(-1, scale**2 * C)
    folded = blocks.new_zeros(N, STRIDE * m1 + 1, STRIDE * m2 + 1, scale**2, C)
    for (row, column), coverage in zip(OFFSETS, _coverages(m1, m2, gain), strict=True):
        source = (corner + (row * blocks.shape[2] + column)).flatten()
        covered = folded[:, row : row + STRIDE * m1 : STRIDE, column : column + STRIDE * m2 : STRIDE]
        block = rows.index_select(0, source).view_as(covered)
        covered += torch.addcmul((shift * coverage).unsqueeze(3), block, (gain * coverage).unsqueeze(3))
    folded = folded[:, :H, :W].to(features.dtype).view(N, H, W, scale, scale, C)
    # (N, H, s, W, s, C) is the channels-last map of scale*H x scale*W; the last permutation only relabels it.
    return folded.permute(0, 1, 3, 2, 4, 5).reshape(N, H * scale, W * scale, C).permute(0, 3, 1, 2)


def fold_gradients(
    features: Tensor, key_mean: Tensor, key_std: Tensor, index: Tensor, scale: int, eps: float, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `fold` in the features, in their type, and in the statistics.

    The forward pass is computed again: what it would have to keep is nine times the features. Written out rather
    than left to autograd, whose gradient of each strided slice is a whole map of zeros.
    """
    N, C, H, W = features.shape
    m1, m2 = index.shape[1:]
    x = _adapn(features, key_mean, key_std, index, scale, eps)
    corner, rows = _corners(index, x.blocks), x.blocks.view(-1, scale**2 * C)
    folded = x.blocks.new_zeros(N, STRIDE * m1 + 1, STRIDE * m2 + 1, scale**2, C)
    folded[:, :H, :W].unflatten(3, (scale, scale)).copy_(
        gradient.permute(0, 2, 3, 1).reshape(N, H, scale, W, scale, C).permute(0, 1, 3, 2, 4, 5)
    )
    gain_gradient, shift_gradient = torch.zeros_like(x.gain), torch.zeros_like(x.shift)
    block_gradient = torch.zeros_like(x.blocks)
    for (row, column), coverage in zip(OFFSETS, _coverages(m1, m2, x.gain), strict=True):
        source = (corner + (row * x.blocks.shape[2] + column)).flatten()
        part = folded[:, row : row + STRIDE * m1 : STRIDE, column : column + STRIDE * m2 : STRIDE]
        shift_gradient += part.sum(3) * coverage
        gain_gradient += (rows.index_select(0, source).view_as(part) * part).sum(3) * coverage
        block_gradient.view_as(rows).index_add_(
            0, source, (part * (x.gain * coverage).unsqueeze(3)).view(-1, scale**2 * C)
        )

    gain_gradient -= shift_gradient * x.key_mean
    key_mean_gradient, key_std_gradient = (
        x.gain.new_zeros(key_mean.shape[:3].numel(), C)
        .index_add_(0, x.neighbor, value.view(-1, C))
        .view(key_mean.shape)
        for value in (-shift_gradient * x.gain, -gain_gradient * x.gain / x.key_std)
    )
    pixel_gradient = _statistics_gradient(x.pixels, eps, shift_gradient, gain_gradient / x.key_std)
    feature_gradient = pixel_gradient.squeeze(3)[:, :H, :W]
    _add_blocks(feature_gradient, block_gradient, scale)
    return feature_gradient.permute(0, 3, 1, 2).to(features.dtype), key_mean_gradient, key_std_gradient


def compute_type(features: Tensor) -> torch.dtype:
    """Return what statistics of the features are computed in."""
    return features.dtype if features.dtype == torch.float64 else torch.float32


def statistics_shape(features: Tensor, scale: int) -> tuple[int, int, int, int]:
    """Return (N, n1, n2, C), the shape of the keys' statistics."""
    N, C, H, W = features.shape
    return N, H // scale // STRIDE, W // scale // STRIDE, C


def _channels_last(features: Tensor) -> Tensor:
    """Return features (N, C, H, W) as (N, H, W, C), in float32 at least."""
    return features.to(compute_type(features)).permute(0, 2, 3, 1)


def _blocks(channels_last: Tensor, scale: int) -> Tensor:
    """Return (N, H, W, C) as blocks (N, h', w', s*s, C): cropped to a multiple of s, zero padded to odd sizes."""
    N, H, W, C = channels_last.shape
    h, w = H // scale, W // scale
    blocks = channels_last[:, : h * scale, : w * scale].reshape(N, h, scale, w, scale, C)
    return _pad_to_odd(blocks.permute(0, 1, 3, 2, 4, 5).reshape(N, h, w, scale**2, C))


def _add_blocks(channels_last: Tensor, blocks: Tensor, scale: int) -> None:
    """Add blocks, as `_blocks` makes them, to where they lie in (N, H, W, C)."""
    h, w = channels_last.shape[1] // scale, channels_last.shape[2] // scale
    channels_last[:, : h * scale, : w * scale].unflatten(1, (h, scale)).unflatten(3, (w, scale)).add_(
        blocks[:, :h, :w].unflatten(3, (scale, scale)).permute(0, 1, 3, 2, 4, 5)
    )


def _corners(index: Tensor, blocks: Tensor) -> Tensor:
    """Return, for every query, the row of its neighbor's first block among the flattened blocks (N, h', w', ...)."""
    N, height, width = blocks.shape[:3]
    n2 = width // STRIDE
    u, v = index.long() // n2, index.long() % n2
    return torch.arange(N, device=index.device).view(N, 1, 1) * (height * width) + STRIDE * (u * width + v)


def _pad_to_odd(channels_last: Tensor) -> Tensor:
    """Append a zero row or column to even sizes of (N, H, W, ...), so that 3-wide patches at stride 2 fit."""
    rows, columns = (size % 2 == 0 for size in channels_last.shape[1:3])
    return F.pad(channels_last, (0, 0) * (channels_last.ndim - 3) + (0, int(columns), 0, int(rows)))


def patch_sum(channels_last: Tensor) -> Tensor:
    """Sum (N, H, W, ...), odd H and W, over 3 x 3 patches at stride 2."""
    x = channels_last
    x = x[:, :-2:STRIDE] + x[:, 1:-1:STRIDE] + x[:, 2::STRIDE]
    return x[:, :, :-2:STRIDE] + x[:, :, 1:-1:STRIDE] + x[:, :, 2::STRIDE]


def _patch_statistics(blocks: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and sqrt(unbiased variance + eps) of each 3 x 3 patch of blocks (N, H, W, P, C), as (N, n1, n2, C).

    Variances of blocks are combined around the patch's mean (Chan et al. 1983): sums of squares would cancel.
    """
    pixels = blocks.shape[3]
    block_mean = blocks.mean(3)
    mean = patch_sum(block_mean) / PATCH**2
    squares = patch_sum((blocks - block_mean.unsqueeze(3)).square().sum(3)) if pixels > 1 else torch.zeros_like(mean)
    n1, n2 = mean.shape[1:3]
    for row, column in OFFSETS:
        part = block_mean[:, row : row + STRIDE * n1 : STRIDE, column : column + STRIDE * n2 : STRIDE]
        squares += pixels * (part - mean).square()
    return mean, (squares / (PATCH**2 * pixels - 1) + eps).sqrt()


def _statistics_gradient(blocks: Tensor, eps: float, mean_gradient: Tensor, std_gradient: Tensor) -> Tensor:
    """Return the gradient of `_patch_statistics` in the blocks.

    A pixel x of a patch contributes mean_gradient / n + std_gradient * (x - mean) / ((n - 1) * std): affine in x.
    """
    mean, std = _patch_statistics(blocks, eps)
    count = PATCH**2 * blocks.shape[3]
    slope = std_gradient.view_as(std) / ((count - 1) * std)
    constant = mean_gradient.view_as(mean) / count - slope * mean
    n1, n2 = mean.shape[1:3]
    slopes, constants = torch.zeros_like(blocks[..., 0, :]), torch.zeros_like(blocks[..., 0, :])
    for row, column in OFFSETS:
        for total, value in ((slopes, slope), (constants, constant)):
            total[:, row : row + STRIDE * n1 : STRIDE, column : column + STRIDE * n2 : STRIDE] += value
    return torch.addcmul(constants.unsqueeze(3), blocks, slopes.unsqueeze(3))


def _coverages(m1: int, m2: int, like: Tensor) -> list[Tensor]:
    """Return, for each pixel of the patch, 1 / (number of patches over that pixel of each patch), as (m1, m2, 1)."""
    row, column = (like.new_ones(STRIDE * patches + 1) for patches in (m1, m2))
    row[STRIDE:-1:STRIDE] = column[STRIDE:-1:STRIDE] = 0.5
    weight = (row[:, None] * column)[..., None]
    return [weight[r : r + STRIDE * m1 : STRIDE, c : c + STRIDE * m2 : STRIDE] for r, c in OFFSETS]

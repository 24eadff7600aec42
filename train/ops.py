"""The two graph operators, defined once: meaning, shapes, CPU implementation, gradient.

The network calls nothing else for its graph part. The exporter turns each call into one ONNX node, TensorRT replaces
that node by the plugin, and `plugins.torch_ops` registers the plugin's CUDA kernels as the operators' CUDA
implementation. Both operators cost time and memory linear in the number of pixels.

Notation: patches are 3 x 3 at stride 2 in both scales. A map of n pixels (n >= 2) has n // 2 patches per row, after one
zero pixel is appended to even n. "Block" means the s x s pixels of the features that one key pixel names.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import PATCH, STRIDE

_OFFSETS = [(row, column) for row in range(PATCH) for column in range(PATCH)]
_QUERIES_PER_BLOCK = 256  # queries that share one matrix product: 16 x 16 waste 1.5 x on the union of their windows


def window_sides(window: int, rows: int, columns: int) -> tuple[int, int]:
    """Return height and width of the search window, in key patches, on a grid of rows x columns key patches.

    The whole grid if it fits into window x window, else a square of the largest side that fits.
    """
    if window >= rows and window >= columns:
        return rows, columns
    side = min(window, rows, columns)
    return side, side


@torch.library.custom_op("ignn::windowed_knn", mutates_args=())
def windowed_knn(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest key patches of every query patch within its window (paper section 3.1).

    The distance is the squared Euclidean one over the 3 x 3 x E patch. The window of query row i starts at key row
    clamp(i // scale - side // 2, 0, n1 - side), columns alike; its sides are `window_sides`'.

    Args:
        query: (N, E, H, W) float map, H and W at least 2 * scale.
        key: (N, E, H // scale, W // scale) map of the same type, at least 2 pixels high and wide.
        k: neighbors per query.
        window: largest side of the window, in key patches.
        scale: ratio s of the two maps.

    Returns:
        index: int32 (N, m1, m2, k), flat in the key grid (row * n2 + column), nearest first.
        edge: (N, k, E, m1, m2), type of `query`: sum over the patch's 9 pixels of |query - key|.

    Raises:
        ValueError: if the maps do not belong together or the window holds fewer than k patches.
    """
    _check_maps(query, key, k, window, scale)
    compute = query.dtype if query.dtype == torch.float64 else torch.float32
    N, E, H, W = query.shape
    m1, m2 = H // STRIDE, W // STRIDE
    n1, n2 = key.shape[2] // STRIDE, key.shape[3] // STRIDE
    side1, side2 = window_sides(window, n1, n2)
    # One common offset leaves every distance as it is and spares |key|^2 - 2 query.key most of its cancellation.
    offset = key.mean(dim=(0, 2, 3), dtype=compute).view(1, E, 1, 1)
    query_map = _channels_last_odd(query.to(compute) - offset, -offset)
    key_map = _channels_last_odd(key.to(compute) - offset, -offset)
    key_rows = key_map.reshape(-1, E)
    key_norm = _patch_sum(key_map.square().sum(-1, keepdim=True)).squeeze(-1)

    index = query.new_empty((N, m1, m2, k), dtype=torch.int32)
    edge = query.new_empty((N, k, E, m1, m2))
    batch_base = torch.arange(N, device=query.device).view(N, 1, 1) * (key_map.shape[1] * key_map.shape[2])
    step = max(1, round(_QUERIES_PER_BLOCK**0.5 / scale)) * scale
    for i0 in range(0, m1, step):
        rows = torch.arange(i0, min(i0 + step, m1), device=query.device)
        first_row = (rows // scale - side1 // 2).clamp(0, n1 - side1)
        u0, u1 = int(first_row[0]), int(first_row[-1]) + side1
        for j0 in range(0, m2, step):
            columns = torch.arange(j0, min(j0 + step, m2), device=query.device)
            first_column = (columns // scale - side2 // 2).clamp(0, n2 - side2)
            v0, v1 = int(first_column[0]), int(first_column[-1]) + side2

            queries = _patches(query_map, i0, i0 + len(rows), j0, j0 + len(columns))
            keys = _patches(key_map, u0, u1, v0, v1)
            distance = torch.baddbmm(
                key_norm[:, u0:u1, v0:v1].reshape(N, 1, -1), queries.flatten(2), keys.flatten(2).mT, alpha=-2
            )
            outside = (
                _outside(first_row, u0, u1, side1)[:, None, :, None]
                | (_outside(first_column, v0, v1, side2)[None, :, None])
            )
            if bool(outside.any()):
                distance = distance.masked_fill_(outside.reshape(1, distance.shape[1], -1), torch.inf)
            local = distance.topk(k, dim=-1, largest=False).indices
            u, v = u0 + local // (v1 - v0), v0 + local % (v1 - v0)

            here = (slice(i0, i0 + len(rows)), slice(j0, j0 + len(columns)))
            index[:, *here] = (u * n2 + v).view(N, len(rows), len(columns), k).int()
            corner = batch_base + STRIDE * (u * key_map.shape[2] + v)
            label = query_map.new_zeros(N, queries.shape[1], k, E)
            for patch_pixel, (row, column) in enumerate(_OFFSETS):
                neighbor = key_rows[corner + (row * key_map.shape[2] + column)]
                label += neighbor.sub_(queries[:, :, patch_pixel, None]).abs_()
            edge[..., *here] = label.view(N, len(rows), len(columns), k, E).permute(0, 3, 4, 1, 2)
    return index, edge


@windowed_knn.register_fake
def _(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
    N, E, H, W = query.shape
    m1, m2 = H // STRIDE, W // STRIDE
    return query.new_empty((N, m1, m2, k), dtype=torch.int32), query.new_empty((N, k, E, m1, m2))


@torch.library.custom_op("ignn::adapn_gather", mutates_args=())
def adapn_gather(features: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    """Map one neighbor of every query to the features, renormalise it and fold (paper section 3.2, equations 4 to 6).

    Key patch (u, v) names the 3s x 3s features at (2s*u, 2s*v). AdaPN gives that patch, channel by channel, the mean
    and the standard deviation (unbiased variance + eps) of the 3 x 3 query patch; where patches overlap in the
    s-times larger map, they are averaged. Differentiable in `features`.

    Args:
        features: (N, C, H, W) float, H and W at least 2 * scale.
        index: int32 (N, H // 2, W // 2), one neighbor of every query, as `windowed_knn` numbers them.
        scale: ratio s.
        eps: added to the variances.

    Returns:
        (N, C, scale * H, scale * W), type of `features`.

    Raises:
        ValueError: if `index` does not fit the query grid.
    """
    N, _, H, W = features.shape
    if index.shape != (N, H // STRIDE, W // STRIDE):
        raise ValueError(
            f"Invalid index shape {tuple(index.shape)}. Features of shape {tuple(features.shape)} "
            f"have a query grid of {(N, H // STRIDE, W // STRIDE)}."
        )
    return _adapn_gather(features, index, scale, eps)


@adapn_gather.register_fake
def _(features: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    N, C, H, W = features.shape
    return features.new_empty((N, H * scale, W * scale, C)).permute(0, 3, 1, 2)


def _save_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    features, index, ctx.scale, ctx.eps = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(features, index)


def _adapn_gather_backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor, None, None, None]:
    features, index = ctx.saved_tensors  # type: ignore[attr-defined]
    scale, eps = ctx.scale, ctx.eps  # type: ignore[attr-defined]
    return _adapn_gather_gradient(features, index, scale, eps, gradient), None, None, None


adapn_gather.register_autograd(_adapn_gather_backward, setup_context=_save_inputs)


class _AdaPN(NamedTuple):
    """AdaPN of every query's neighbor: z * gain + shift per query and channel, so that no patch has to exist.

    Blocks are (N, h', w', s*s, C): the features that each key pixel names, zero padded to odd sizes. Statistics of
    keys are taken at each query's neighbor; all are (N, m1, m2, C).
    """

    pixels: Tensor
    """The features as (N, H', W', 1, C), zero padded to odd sizes."""
    blocks: Tensor
    neighbor: Tensor
    """Number of each query's neighbor among the flattened key patches of the batch, (N * m1 * m2)."""
    query_mean: Tensor
    query_std: Tensor
    key_mean: Tensor
    key_std: Tensor
    gain: Tensor
    shift: Tensor


def _adapn(features: Tensor, index: Tensor, scale: int, eps: float) -> _AdaPN:
    compute = features.dtype if features.dtype == torch.float64 else torch.float32
    N, C, H, W = features.shape
    h, w = H // scale, W // scale
    channels_last = features.to(compute).permute(0, 2, 3, 1)
    pixels = _pad_to_odd(channels_last).unsqueeze(3)
    blocks = channels_last[:, : h * scale, : w * scale].reshape(N, h, scale, w, scale, C)
    blocks = _pad_to_odd(blocks.permute(0, 1, 3, 2, 4, 5).reshape(N, h, w, scale**2, C))
    query_mean, query_std = _patch_statistics(pixels, eps)
    means, stds = _patch_statistics(blocks, eps)
    patches = means.shape[1] * means.shape[2]
    neighbor = (index.long() + torch.arange(N, device=index.device).view(N, 1, 1) * patches).flatten()
    key_mean, key_std = (x.view(-1, C).index_select(0, neighbor).view_as(query_mean) for x in (means, stds))
    gain = query_std / key_std
    return _AdaPN(
        pixels, blocks, neighbor, query_mean, query_std, key_mean, key_std, gain, query_mean - gain * key_mean
    )


def _adapn_gather(features: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    N, C, H, W = features.shape
    m1, m2 = index.shape[1:]
    blocks, gain, shift = (x := _adapn(features, index, scale, eps)).blocks, x.gain, x.shift
    corner, rows = _corners(index, blocks), blocks.view(-1, scale**2 * C)
    folded = blocks.new_zeros(N, STRIDE * m1 + 1, STRIDE * m2 + 1, scale**2, C)
    for (row, column), coverage in zip(_OFFSETS, _coverages(m1, m2, gain), strict=True):
        source = (corner + (row * blocks.shape[2] + column)).flatten()
        covered = folded[:, row : row + STRIDE * m1 : STRIDE, column : column + STRIDE * m2 : STRIDE]
        block = rows.index_select(0, source).view_as(covered)
        covered += torch.addcmul((shift * coverage).unsqueeze(3), block, (gain * coverage).unsqueeze(3))
    folded = folded[:, :H, :W].to(features.dtype).view(N, H, W, scale, scale, C)
    # (N, H, s, W, s, C) is the channels-last map of scale*H x scale*W; the last permutation only relabels it.
    return folded.permute(0, 1, 3, 2, 4, 5).reshape(N, H * scale, W * scale, C).permute(0, 3, 1, 2)


def _adapn_gather_gradient(features: Tensor, index: Tensor, scale: int, eps: float, gradient: Tensor) -> Tensor:
    """Return the gradient of `adapn_gather` in the features, in their type.

    The forward pass is computed again: what it would have to keep is nine times the features. Written out rather
    than left to autograd, whose gradient of each strided slice is a whole map of zeros.
    """
    N, C, H, W = features.shape
    m1, m2 = index.shape[1:]
    x = _adapn(features, index, scale, eps)
    corner, rows = _corners(index, x.blocks), x.blocks.view(-1, scale**2 * C)
    folded = x.blocks.new_zeros(N, STRIDE * m1 + 1, STRIDE * m2 + 1, scale**2, C)
    folded[:, :H, :W].unflatten(3, (scale, scale)).copy_(
        gradient.permute(0, 2, 3, 1).reshape(N, H, scale, W, scale, C).permute(0, 1, 3, 2, 4, 5)
    )
    gain_gradient, shift_gradient = torch.zeros_like(x.gain), torch.zeros_like(x.shift)
    block_gradient = torch.zeros_like(x.blocks)
    for (row, column), coverage in zip(_OFFSETS, _coverages(m1, m2, x.gain), strict=True):
        source = (corner + (row * x.blocks.shape[2] + column)).flatten()
        part = folded[:, row : row + STRIDE * m1 : STRIDE, column : column + STRIDE * m2 : STRIDE]
        shift_gradient += part.sum(3) * coverage
        gain_gradient += (rows.index_select(0, source).view_as(part) * part).sum(3) * coverage
        block_gradient.view_as(rows).index_add_(
            0, source, (part * (x.gain * coverage).unsqueeze(3)).view(-1, scale**2 * C)
        )

    gain_gradient -= shift_gradient * x.key_mean
    key_mean_gradient, key_std_gradient = (
        x.gain.new_zeros(N * (x.blocks.shape[1] // STRIDE) * (x.blocks.shape[2] // STRIDE), C).index_add_(
            0, x.neighbor, value.view(-1, C)
        )
        for value in (-shift_gradient * x.gain, -gain_gradient * x.gain / x.key_std)
    )
    block_gradient += _statistics_gradient(x.blocks, eps, key_mean_gradient, key_std_gradient)
    pixel_gradient = _statistics_gradient(x.pixels, eps, shift_gradient, gain_gradient / x.key_std)

    feature_gradient = pixel_gradient.squeeze(3)[:, :H, :W]
    h, w = H // scale, W // scale
    feature_gradient[:, : h * scale, : w * scale].unflatten(1, (h, scale)).unflatten(3, (w, scale)).add_(
        block_gradient[:, :h, :w].unflatten(3, (scale, scale)).permute(0, 1, 3, 2, 4, 5)
    )
    return feature_gradient.permute(0, 3, 1, 2).to(features.dtype)


def _corners(index: Tensor, blocks: Tensor) -> Tensor:
    """Return, for every query, the row of its neighbor's first block among the flattened blocks (N, h', w', ...)."""
    N, height, width = blocks.shape[:3]
    n2 = width // STRIDE
    u, v = index.long() // n2, index.long() % n2
    return torch.arange(N, device=index.device).view(N, 1, 1) * (height * width) + STRIDE * (u * width + v)


def _check_maps(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> None:
    N, E, H, W = query.shape
    expected = (N, E, H // scale, W // scale)
    if key.shape != expected or key.dtype != query.dtype:
        raise ValueError(
            f"Invalid key map {tuple(key.shape)} {key.dtype}. A query map {tuple(query.shape)} {query.dtype} "
            f"at scale {scale} needs {expected} of the same type."
        )
    side1, side2 = window_sides(window, key.shape[2] // STRIDE, key.shape[3] // STRIDE)
    if side1 * side2 < k:
        raise ValueError(
            f"Invalid k ({k}). The window holds {side1} x {side2} key patches of a {tuple(key.shape[2:])} map; "
            "use a larger image or a smaller k."
        )


def _pad_to_odd(channels_last: Tensor) -> Tensor:
    """Append a zero row or column to even sizes of (N, H, W, ...), so that 3-wide patches at stride 2 fit."""
    rows, columns = (size % 2 == 0 for size in channels_last.shape[1:3])
    return F.pad(channels_last, (0, 0) * (channels_last.ndim - 3) + (0, int(columns), 0, int(rows)))


def _channels_last_odd(x: Tensor, padding: Tensor) -> Tensor:
    """Return x as contiguous (N, H, W, E), odd in H and W, the appended pixels holding `padding`."""
    N, E, H, W = x.shape
    padded = padding.permute(0, 2, 3, 1).expand(N, H + (H % 2 == 0), W + (W % 2 == 0), E).contiguous()
    padded[:, :H, :W] = x.permute(0, 2, 3, 1)
    return padded


def _patches(channels_last: Tensor, i0: int, i1: int, j0: int, j1: int) -> Tensor:
    """Return the patches of rows [i0, i1) and columns [j0, j1) as (N, patches, 9, E)."""
    part = channels_last[:, STRIDE * i0 : STRIDE * i1 + 1, STRIDE * j0 : STRIDE * j1 + 1]
    windows = part.unfold(1, PATCH, STRIDE).unfold(2, PATCH, STRIDE)  # (N, rows, columns, E, 3, 3)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(part.shape[0], -1, PATCH**2, part.shape[3])


def _patch_sum(channels_last: Tensor) -> Tensor:
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
    mean = _patch_sum(block_mean) / PATCH**2
    squares = _patch_sum((blocks - block_mean.unsqueeze(3)).square().sum(3)) if pixels > 1 else torch.zeros_like(mean)
    n1, n2 = mean.shape[1:3]
    for row, column in _OFFSETS:
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
    for row, column in _OFFSETS:
        for total, value in ((slopes, slope), (constants, constant)):
            total[:, row : row + STRIDE * n1 : STRIDE, column : column + STRIDE * n2 : STRIDE] += value
    return torch.addcmul(constants.unsqueeze(3), blocks, slopes.unsqueeze(3))


def _outside(first: Tensor, start: int, stop: int, side: int) -> Tensor:
    """Return (queries, stop - start) booleans: key positions outside each query's window, in one direction."""
    offset = torch.arange(start, stop, device=first.device) - first[:, None]
    return (offset < 0) | (offset >= side)


def _coverages(m1: int, m2: int, like: Tensor) -> list[Tensor]:
    """Return, for each pixel of the patch, 1 / (number of patches over that pixel of each patch), as (m1, m2, 1)."""
    row, column = (like.new_ones(STRIDE * patches + 1) for patches in (m1, m2))
    row[STRIDE:-1:STRIDE] = column[STRIDE:-1:STRIDE] = 0.5
    weight = (row[:, None] * column)[..., None]
    return [weight[r : r + STRIDE * m1 : STRIDE, c : c + STRIDE * m2 : STRIDE] for r, c in _OFFSETS]

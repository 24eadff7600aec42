"""The three graph operators, defined once: meaning, shapes, CPU implementation, gradient.

The network calls nothing else for its graph part. The exporter turns each call into one ONNX node, TensorRT replaces
that node by the plugin, and `plugins.torch_ops` registers the plugin's CUDA kernels as the operators' CUDA
implementation. Each costs time and memory linear in the number of pixels.

Notation: patches are 3 x 3 at stride 2 in both scales. A map of n pixels (n >= 2) has n // 2 patches per row, after one
zero pixel is appended to even n. "Block" means the s x s pixels of the features that one key pixel names.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train import adapn
from train.config import PATCH, STRIDE

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
    key_norm = adapn.patch_sum(key_map.square().sum(-1, keepdim=True)).squeeze(-1)

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
            for patch_pixel, (row, column) in enumerate(adapn.OFFSETS):
                neighbor = key_rows[corner + (row * key_map.shape[2] + column)]
                label += neighbor.sub_(queries[:, :, patch_pixel, None]).abs_()
            edge[..., *here] = label.view(N, len(rows), len(columns), k, E).permute(0, 3, 4, 1, 2)
    return index, edge


@windowed_knn.register_fake
def _(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
    N, E, H, W = query.shape
    m1, m2 = H // STRIDE, W // STRIDE
    return query.new_empty((N, m1, m2, k), dtype=torch.int32), query.new_empty((N, k, E, m1, m2))


@torch.library.custom_op("ignn::key_statistics", mutates_args=())
def key_statistics(features: Tensor, scale: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every patch of the features that a key patch names, channel by channel.

    Key patch (u, v) names the 3s x 3s features at (2s*u, 2s*v), zeros beyond the map included. All neighbors of a
    network share them: `adapn_gather` takes them once for each. Differentiable.

    Args:
        features: (N, C, H, W) float, H and W at least 2 * scale.
        scale: ratio s.
        eps: added to the variances.

    Returns:
        mean: (N, n1, n2, C), n1 = H // scale // 2, n2 = W // scale // 2; float32, float64 for float64.
        std: the same for sqrt(unbiased variance + eps).
    """
    return adapn.key_statistics(features, scale, eps)


@key_statistics.register_fake
def _(features: Tensor, scale: int, eps: float) -> tuple[Tensor, Tensor]:
    shape, dtype = adapn.statistics_shape(features, scale), adapn.compute_type(features)
    return features.new_empty(shape, dtype=dtype), features.new_empty(shape, dtype=dtype)


def _save_features(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    features, ctx.scale, ctx.eps = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(features)


def _key_statistics_backward(
    ctx: torch.autograd.function.FunctionCtx, mean_gradient: Tensor, std_gradient: Tensor
) -> tuple[Tensor, None, None]:
    (features,) = ctx.saved_tensors  # type: ignore[attr-defined]
    scale, eps = ctx.scale, ctx.eps  # type: ignore[attr-defined]
    return adapn.key_statistics_gradient(features, scale, eps, mean_gradient, std_gradient), None, None


key_statistics.register_autograd(_key_statistics_backward, setup_context=_save_features)


@torch.library.custom_op("ignn::adapn_gather", mutates_args=())
def adapn_gather(features: Tensor, key_mean: Tensor, key_std: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    """Map one neighbor of every query to the features, renormalise it and fold (paper section 3.2, equations 4 to 6).

    Key patch (u, v) names the 3s x 3s features at (2s*u, 2s*v). AdaPN gives that patch, channel by channel, the mean
    and the standard deviation (unbiased variance + eps) of the 3 x 3 query patch; where patches overlap in the
    s-times larger map, they are averaged. Differentiable in the features and in the statistics.

    Args:
        features: (N, C, H, W) float, H and W at least 2 * scale.
        key_mean, key_std: (N, n1, n2, C), from `key_statistics` of the same features, scale and eps.
        index: int32 (N, H // 2, W // 2), one neighbor of every query, as `windowed_knn` numbers them.
        scale: ratio s.
        eps: added to the variances.

    Returns:
        (N, C, scale * H, scale * W), type of `features`.

    Raises:
        ValueError: if `index` does not fit the query grid, or the statistics the key grid.
    """
    N, _, H, W = features.shape
    if index.shape != (N, H // STRIDE, W // STRIDE):
        raise ValueError(
            f"Invalid index shape {tuple(index.shape)}. Features of shape {tuple(features.shape)} "
            f"have a query grid of {(N, H // STRIDE, W // STRIDE)}."
        )
    shape = adapn.statistics_shape(features, scale)
    if not key_mean.shape == key_std.shape == shape:
        raise ValueError(
            f"Invalid statistics {tuple(key_mean.shape)} and {tuple(key_std.shape)}. Features of shape "
            f"{tuple(features.shape)} at scale {scale} have those of key_statistics, {shape}."
        )
    return adapn.fold(features, key_mean, key_std, index, scale, eps)


@adapn_gather.register_fake
def _(features: Tensor, key_mean: Tensor, key_std: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    N, C, H, W = features.shape
    return features.new_empty((N, H * scale, W * scale, C)).permute(0, 3, 1, 2)


def _save_inputs(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.scale, ctx.eps = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors)


def _adapn_gather_backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
    features, key_mean, key_std, index = ctx.saved_tensors  # type: ignore[attr-defined]
    scale, eps = ctx.scale, ctx.eps  # type: ignore[attr-defined]
    return *adapn.fold_gradients(features, key_mean, key_std, index, scale, eps, gradient), None, None, None


adapn_gather.register_autograd(_adapn_gather_backward, setup_context=_save_inputs)


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


def _outside(first: Tensor, start: int, stop: int, side: int) -> Tensor:
    """Return (queries, stop - start) booleans: key positions outside each query's window, in one direction."""
    offset = torch.arange(start, stop, device=first.device) - first[:, None]
    return (offset < 0) | (offset >= side)

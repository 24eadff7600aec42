"""The graph operators as one would first write them in PyTorch: every patch is materialised.

The kernels are measured against them. Their meaning is that of train/ops.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.ops import window_sides


def _patches(x: Tensor, scale: int = 1) -> Tensor:
    """Return all patches of x (N, C, H, W), 3 * scale wide at stride 2 * scale, as (N, C * 9 * scale^2, count)."""
    H, W = x.shape[2] // scale, x.shape[3] // scale
    padded = F.pad(x[:, :, : H * scale, : W * scale], (0, scale * (1 - W % 2), 0, scale * (1 - H % 2)))
    return F.unfold(padded, 3 * scale, stride=2 * scale)


def windowed_knn(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
    """Compute train.ops.windowed_knn by the distances of all pairs."""
    N, E, H, W = query.shape
    m1, m2 = H // 2, W // 2
    n1, n2 = key.shape[2] // 2, key.shape[3] // 2
    queries, keys = _patches(query).mT, _patches(key).mT
    side1, side2 = window_sides(window, n1, n2)

    def outside(m: int, n: int, side: int) -> Tensor:
        first = (torch.arange(m, device=query.device) // scale - side // 2).clamp(0, n - side)
        offset = torch.arange(n, device=query.device) - first[:, None]
        return (offset < 0) | (offset >= side)

    distances = torch.cdist(queries.float(), keys.float())
    masked = outside(m1, n1, side1)[:, None, :, None] | outside(m2, n2, side2)[None, :, None, :]
    distances.masked_fill_(masked.reshape(m1 * m2, n1 * n2), torch.inf)
    index = distances.topk(k, largest=False).indices  # (N, m1 m2, k)
    neighbors = keys.gather(1, index.reshape(N, -1, 1).expand(-1, -1, keys.shape[2])).view(N, m1 * m2, k, E, 9)
    edge = (neighbors - queries.view(N, m1 * m2, 1, E, 9)).abs().sum(-1)
    return index.view(N, m1, m2, k).int(), edge.permute(0, 2, 3, 1).reshape(N, k, E, m1, m2)


def adapn_gather(features: Tensor, index: Tensor, scale: int, eps: float) -> Tensor:
    """Compute train.ops.adapn_gather, the statistics included, by gathering, normalising and folding whole patches."""
    N, C, H, W = features.shape
    m1, m2 = index.shape[1:]
    queries = _patches(features).view(N, C, 9, -1)
    keys = _patches(features, scale)
    flat = index.reshape(N, 1, -1).long().expand(-1, keys.shape[1], -1)
    neighbors = keys.gather(2, flat).view(N, C, 9 * scale**2, -1)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x.float(), 2, keepdim=True)
        return mean, (variance + eps).sqrt()

    (query_mean, query_std), (mean, std) = statistics(queries), statistics(neighbors)
    normalised = ((neighbors - mean) / std * query_std + query_mean).to(features.dtype)
    size = (scale * (2 * m1 + 1), scale * (2 * m2 + 1))
    folded = F.fold(normalised.flatten(1, 2), size, 3 * scale, stride=2 * scale)
    count = F.fold(torch.ones_like(normalised[:1, :1].flatten(1, 2)), size, 3 * scale, stride=2 * scale)
    return (folded / count)[:, :, : scale * H, : scale * W]

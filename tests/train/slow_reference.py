"""IGNN's graph written straight from the text: unfold, gather, fold, all pairs. Slow, large, and obviously right."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from train import IGNN
from train.ops import window_sides


def pad_amount(n: int) -> int:
    return -(n - 3) % 2


def unfold(x: torch.Tensor, size: int, stride: int, padding: tuple[int, int]) -> torch.Tensor:
    """Return all patches of one image (C, H, W) as (patches, C, size * size), and pad below and to the right."""
    x = F.pad(x, (0, padding[1], 0, padding[0]))
    return F.unfold(x[None], size, stride=stride)[0].view(x.shape[0], size * size, -1).permute(2, 0, 1)


def window_mask(m1: int, m2: int, n1: int, n2: int, window: int, scale: int) -> torch.Tensor:
    """Return (m1 * m2, n1 * n2) booleans: key patch inside the query's window."""
    side1, side2 = window_sides(window, n1, n2)
    mask = torch.zeros(m1, m2, n1, n2, dtype=torch.bool)
    for i in range(m1):
        for j in range(m2):
            u = min(max(i // scale - side1 // 2, 0), n1 - side1)
            v = min(max(j // scale - side2 // 2, 0), n2 - side2)
            mask[i, j, u : u + side1, v : v + side2] = True
    return mask.view(m1 * m2, n1 * n2)


def grid(n: int) -> int:
    return (n + pad_amount(n) - 3) // 2 + 1


def windowed_knn(query: torch.Tensor, key: torch.Tensor, k: int, window: int, scale: int):
    """Return index, edge and the sorted distances (N, m1, m2, up to k + 1) in float64."""
    m1, m2, n1, n2 = (grid(n) for n in (*query.shape[2:], *key.shape[2:]))
    mask = window_mask(m1, m2, n1, n2, window, scale)
    indices, distances = [], []
    for q_map, k_map in zip(query.double(), key.double(), strict=True):
        q = unfold(q_map, 3, 2, tuple(pad_amount(n) for n in q_map.shape[1:]))
        c = unfold(k_map, 3, 2, tuple(pad_amount(n) for n in k_map.shape[1:]))
        distance = (q[:, None] - c[None]).square().sum((2, 3)).masked_fill(~mask, torch.inf)
        values, index = distance.sort(dim=1, stable=True)
        indices.append(index[:, :k].view(m1, m2, k))
        distances.append(values[:, : k + 1].view(m1, m2, -1))
    index = torch.stack(indices)
    return index, edge_labels(query, key, index), torch.stack(distances)


def edge_labels(query: torch.Tensor, key: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the absolute differences (N, k, C, m1, m2) of query and neighbor, added up inside the patch."""
    m1, m2, k = index.shape[1:]
    edges = []
    for q_map, k_map, neighbor in zip(query.double(), key.double(), index.long(), strict=True):
        q = unfold(q_map, 3, 2, tuple(pad_amount(n) for n in q_map.shape[1:]))
        c = unfold(k_map, 3, 2, tuple(pad_amount(n) for n in k_map.shape[1:]))
        edge = (q[:, None] - c[neighbor.view(-1, k)]).abs().sum(-1)  # (queries, k, C)
        edges.append(edge.permute(1, 2, 0).reshape(k, -1, m1, m2))
    return torch.stack(edges)


def assert_same_neighbors(index: torch.Tensor, expected: torch.Tensor, distances: torch.Tensor) -> None:
    """Neighbors may differ only where the reference's distances tie within float32's rounding."""
    k = expected.shape[-1]
    tied = torch.zeros_like(expected, dtype=torch.bool)
    close = (distances[..., 1:] - distances[..., :-1]) <= 1e-5 * distances[..., 1:].clamp(min=1)
    tied[..., 1:] |= close[..., : k - 1]
    tied[..., : close.shape[-1]] |= close
    assert not ((index.long() != expected) & ~tied).any()


def fold_patches(patches: torch.Tensor, size: int, stride: int, height: int, width: int, pad: tuple[int, int]):
    """Overlap-add (patches, C, size * size), divide by the overlap count, cut the padding."""
    channels = patches.shape[1]
    columns = patches.permute(1, 2, 0).reshape(1, channels * size * size, -1)
    padded = (height + pad[0], width + pad[1])
    total = F.fold(columns, padded, size, stride=stride)
    count = F.fold(torch.ones_like(columns), padded, size, stride=stride)
    return (total / count)[0, :, :height, :width]


def key_patches(features: torch.Tensor, scale: int) -> torch.Tensor:
    """Return the patches that key patches name in features (C, H, W), as (patches, C, 9 * scale^2)."""
    h, w = features.shape[1] // scale, features.shape[2] // scale
    padding = (scale * pad_amount(h), scale * pad_amount(w))
    return unfold(features[:, : h * scale, : w * scale], 3 * scale, 2 * scale, padding)


def key_statistics(features: torch.Tensor, scale: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    N, C, H, W = features.shape
    keys = torch.stack([key_patches(f, scale) for f in features])
    mean, std = keys.mean(3), (keys.var(3, unbiased=True) + eps).sqrt()
    shape = (N, grid(H // scale), grid(W // scale), C)
    return mean.view(shape), std.view(shape)


def adapn_gather(features: torch.Tensor, index: torch.Tensor, scale: int, eps: float) -> torch.Tensor:
    H, W = features.shape[2:]
    query_pad = tuple(pad_amount(n) for n in (H, W))
    outputs = []
    for f, neighbor in zip(features, index.long(), strict=True):
        query = unfold(f, 3, 2, query_pad)
        z = key_patches(f, scale)[neighbor.flatten()]
        normal = (z - z.mean(2, keepdim=True)) / (z.var(2, keepdim=True, unbiased=True) + eps).sqrt()
        z = normal * (query.var(2, keepdim=True, unbiased=True) + eps).sqrt() + query.mean(2, keepdim=True)
        pad = tuple(scale * p for p in query_pad)
        outputs.append(fold_patches(z, 3 * scale, 2 * scale, scale * H, scale * W, pad))
    return torch.stack(outputs)


def forward(net: IGNN, lr: torch.Tensor) -> torch.Tensor:
    """Compute the network with edge maps and edge conditioning at high resolution, as the released code does.

    The neighbors are the network's own, once they are shown to be the nearest: of two that tie within float32's
    rounding either will do, but they are different pictures.
    """
    s, k = net.config.graph_scale, net.config.neighbors
    H, W = lr.shape[2:]
    features = net.body1(x := net.head(lr - net.mean))
    query, key = net.embedding(lr), net.embedding(net.reduce(lr))
    expected, _, distances = windowed_knn(query, key, k, net.config.window, s)
    index, _ = net.find_neighbors(lr, net.reduce(lr))
    assert_same_neighbors(index, expected, distances)
    edge = edge_labels(query, key, index).to(lr.dtype)
    pad = tuple(s * pad_amount(n) for n in (H, W))
    logits_lr, logits_hr, folded = [], [], []
    for r in range(k):
        hr_edges = []
        for label in edge[:, r]:
            constant = label.flatten(1).T[:, :, None].expand(-1, -1, (3 * s) ** 2)
            hr_edges.append(fold_patches(constant, 3 * s, 2 * s, s * H, s * W, pad))
        hr_edge = torch.stack(hr_edges)
        logits_hr.append(torch.nn.Sequential.forward(net.gcn.weightnet_hr, hr_edge))
        logits_lr.append(torch.nn.Sequential.forward(net.gcn.weightnet_lr, F.avg_pool2d(hr_edge, s)))
        folded.append(adapn_gather(features, index[..., r], s, 1e-5))
    weight_lr, weight_hr = (torch.stack(logits).softmax(0) for logits in (logits_lr, logits_hr))
    f_hr = sum(w * f for w, f in zip(weight_hr, folded, strict=True))
    f_lr = sum(w * net.gcn.knn_downsample(f) for w, f in zip(weight_lr, folded, strict=True))
    deep = x + net.body2(net.fuse_b(torch.cat([features, f_lr], 1)))
    return net.tail(net.fuse_up(torch.cat([net.upsample(deep), f_hr], 1))) + net.mean

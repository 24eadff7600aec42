"""The operators written from their definition, one patch at a time, in numpy: slow, and meant to be read."""

from __future__ import annotations

import numpy as np


def patches(x: np.ndarray, side: int, stride: int, padding: int) -> np.ndarray:
    """Return (rows, columns, C, side, side) patches of x (C, H, W), zero padded after its end."""
    x = np.pad(x, ((0, 0), (0, padding), (0, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]
    return windows.transpose(1, 2, 0, 3, 4)


def patch_grid(x: np.ndarray, scale: int = 1) -> np.ndarray:
    """Return the patches of a map `scale` times finer than the one whose 3 x 3 patches at stride 2 name them."""
    rows, columns = x.shape[1] // scale // 2, x.shape[2] // scale // 2
    return patches(x, 3 * scale, 2 * scale, scale)[:rows, :columns]


def window(i: int, count: int, other: int, width: int, scale: int) -> range:
    """Return the key rows (columns) that query row (column) i may be compared with, of `count`."""
    side = count if width >= count and width >= other else min(width, count, other)
    first = min(max(i // scale - side // 2, 0), count - side)
    return range(first, first + side)


def squared_distances(query: np.ndarray, key: np.ndarray, width: int, scale: int) -> np.ndarray:
    """Return (m1, m2, n1 * n2) squared distances of maps (E, H, W); infinite outside the window."""
    queries, keys = patch_grid(query.astype(np.float64)), patch_grid(key.astype(np.float64))
    m1, m2 = queries.shape[:2]
    n1, n2 = keys.shape[:2]
    distances = np.full((m1, m2, n1, n2), np.inf)
    for i in range(m1):
        for j in range(m2):
            for u in window(i, n1, n2, width, scale):
                for v in window(j, n2, n1, width, scale):
                    distances[i, j, u, v] = np.square(queries[i, j] - keys[u, v]).sum()
    return distances.reshape(m1, m2, n1 * n2)


def nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """Return (m1, m2, k) indices of the smallest distances, ascending, ties by index."""
    return np.argsort(distances, axis=-1, kind="stable")[..., :k].astype(np.int32)


def edge_labels(query: np.ndarray, key: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return (k, E, m1, m2): sum over the patch of |query - key| for given neighbors (m1, m2, k)."""
    queries, keys = patch_grid(query.astype(np.float64)), patch_grid(key.astype(np.float64))
    flat = keys.reshape(-1, *keys.shape[2:])
    return np.abs(queries[:, :, None] - flat[index]).sum((-1, -2)).transpose(2, 3, 0, 1)


def statistics(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of patches (..., side, side)."""
    return x.mean((-1, -2), keepdims=True), np.sqrt(x.var((-1, -2), ddof=1, keepdims=True) + eps)


def key_patches(features: np.ndarray, scale: int) -> np.ndarray:
    """Return the patches (n1, n2, C, 3s, 3s) that key patches name in features (C, H, W)."""
    _, H, W = features.shape
    return patch_grid(features[:, : H // scale * scale, : W // scale * scale].astype(np.float64), scale)


def key_statistics(features: np.ndarray, scale: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation (n1, n2, C) of the patches that key patches name in features (C, H, W)."""
    mean, std = statistics(key_patches(features, scale), eps)
    return mean[..., 0, 0], std[..., 0, 0]


def adapn_gather(features: np.ndarray, index: np.ndarray, scale: int, eps: float) -> np.ndarray:
    """Return (C, s * H, s * W) for features (C, H, W) and one neighbor of every query (m1, m2)."""
    features = features.astype(np.float64)
    C, H, W = features.shape
    queries = patch_grid(features)
    keys = key_patches(features, scale)
    neighbors = keys.reshape(-1, *keys.shape[2:])[index]  # (m1, m2, C, 3s, 3s)
    query_mean, query_std = statistics(queries, eps)
    mean, std = statistics(neighbors, eps)
    normalised = (neighbors - mean) / std * query_std + query_mean
    m1, m2 = index.shape
    step, side = 2 * scale, 3 * scale
    total = np.zeros((C, step * m1 + scale, step * m2 + scale))
    count = np.zeros_like(total[0])
    for i in range(m1):
        for j in range(m2):
            rows, columns = slice(step * i, step * i + side), slice(step * j, step * j + side)
            total[:, rows, columns] += normalised[i, j]
            count[rows, columns] += 1
    return (total / count)[:, : scale * H, : scale * W]

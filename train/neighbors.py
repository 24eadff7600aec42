"""Neighbor patches folded as they stand: GraphAgg without AdaPN, and without learning (paper section 3.2, table 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import PATCH, STRIDE


def fold_neighbors(features: Tensor, index: Tensor, scale: int) -> Tensor:
    """Map one neighbor of every query to the features and fold: `adapn_gather` without its renormalisation.

    Args:
        features: (N, C, H, W) float.
        index: int32 (N, H // 2, W // 2), one neighbor of every query, as `windowed_knn` numbers them.
        scale: ratio s.

    Returns:
        (N, C, scale * H, scale * W), type of `features`.
    """
    H, W = features.shape[-2:]
    m1, m2 = index.shape[1:]
    side, stride = PATCH * scale, STRIDE * scale
    h, w = H // scale, W // scale
    # An even key grid misses one pixel for its last patch.
    missing = (0, scale * (w % 2 == 0), 0, scale * (h % 2 == 0))
    patches = F.unfold(F.pad(features[..., : scale * h, : scale * w], missing), side, stride=stride)
    neighbor = index.long().flatten(1)[:, None].expand(-1, patches.shape[1], -1)
    gathered = patches.gather(2, neighbor)
    size = (stride * m1 + scale, stride * m2 + scale)
    folded = F.fold(gathered, size, side, stride=stride)
    count = F.fold(torch.ones_like(gathered[:1, : side * side]), size, side, stride=stride)
    return (folded / count)[..., : scale * H, : scale * W]

"""ErrorGraph: neighbors lend what the backbone gets wrong one scale below, where the truth is known."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import PATCH, STRIDE
from train.graph_agg import EdgeConditioning, fold_mean
from train.layers import full_precision
from train.ops import adapn_gather

ERROR_EPS = 1e6
"""Variance that is added to the errors' own, some hundreds at most: AdaPN then leaves a neighbor's deviation."""
FEATURES_SCALE = 32.0
"""What features and edge labels are divided by: a trained EDSR's deviate by 8 to 10."""
_TRUST = 0.3
"""Sum of the neighbors' weights before training."""


class ErrorGraph(nn.Module):
    """Sum the errors that k neighbors lend, each with a weight; what is left to a total of 1 goes to no correction.

    Args:
        channels: width of the features, in which patches are matched and whose differences are the edge labels.
        scale: graph scale s.
        neighbors: k.
    """

    def __init__(self, channels: int, scale: int, neighbors: int) -> None:
        super().__init__()
        self.scale = scale
        self.weightnet = EdgeConditioning(channels)
        self.doubt = nn.Conv2d(channels, 1, 3, padding=1)
        last = self.weightnet.get_submodule("2.0")
        assert isinstance(last, nn.Conv2d)
        for layer in (last, self.doubt):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.doubt.bias is not None:
            nn.init.constant_(self.doubt.bias, math.log(neighbors * (1 - _TRUST) / _TRUST))

    def forward(self, errors: Tensor, deep: Tensor, index: Tensor, edge: Tensor) -> Tensor:
        """Return what to add to the backbone's output.

        Args:
            errors: (N, 3, H, W), the image minus what the backbone makes of the reduced one.
            deep: (N, C, H, W), the backbone's last features.
            index: int32 (N, m1, m2, k) and
            edge: (N, k, C, m1, m2), both from `windowed_knn` of the features at both scales.

        Returns:
            (N, 3, s*H, s*W).
        """
        weights = self.neighbor_weights(deep, edge)
        zero, one = statistics_of_nothing(errors, self.scale)
        correction = None
        for r in range(edge.shape[1]):
            folded = adapn_gather(errors, zero, one, index[..., r], self.scale, ERROR_EPS)
            lent = self._enlarged(weights[:, r : r + 1]) * folded
            correction = lent if correction is None else correction + lent
        assert correction is not None
        H, W = errors.shape[-2:]
        own = fold_mean(query_means(errors), H, W)  # which AdaPN gave every neighbor
        return correction - self._enlarged(own * weights.sum(1, keepdim=True))

    def _enlarged(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")

    def neighbor_weights(self, deep: Tensor, edge: Tensor) -> Tensor:
        """Return the neighbors' weights (N, k, H, W) at LR size; their sum is below 1."""
        H, W = deep.shape[-2:]
        with full_precision(deep.device):
            edge, deep = (x.to(self.doubt.weight.dtype) / FEATURES_SCALE for x in (edge, deep))
            logits = [self.weightnet(label, H, W) for label in edge.unbind(1)]
            doubt = self.doubt(deep)
            return torch.cat([*logits, doubt], dim=1).softmax(dim=1)[:, :-1]


def statistics_of_nothing(errors: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation for `adapn_gather` that leave a key patch as it is, but for the query's mean."""
    N, C, H, W = errors.shape
    shape = (N, H // scale // STRIDE, W // scale // STRIDE, C)
    return errors.new_zeros(shape), errors.new_full(shape, ERROR_EPS**0.5)


def query_means(errors: Tensor) -> Tensor:
    """Return the mean of every 3 x 3 query patch: (N, 3, H, W) to (N, 3, m1, m2)."""
    H, W = errors.shape[-2:]
    m1, m2 = H // STRIDE, W // STRIDE  # an even map has one zero pixel appended
    padded = F.pad(errors, (0, STRIDE * m2 + 1 - W, 0, STRIDE * m1 + 1 - H))
    return F.avg_pool2d(padded, PATCH, STRIDE)

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
"""Trust, the sum of the neighbors' weights in the softmax, before training."""
_AROUND = 5
"""Side of the neighborhood, in LR pixels, in which errors agree or do not."""
_STEEPNESS = 8.0
"""Factor on the doubt: its 19 weights then learn as fast as those of the edge labels' network, which are many."""
_LITTLE_TRUST, _MUCH_TRUST, _GIVEN = 0.15, 0.4, 1.5
"""Trust below the first counts as none, above the second this many times; between them it rises smoothly. A doubt that
reads two numbers leaves a little trust everywhere, which costs pictures where nothing recurs."""
_NO_ERROR, _NO_CONTRAST = 0.3, 1.6
"""What squared errors and contrasts are too small to be compared: rounding to 8 bits makes 0.1 of the first."""


class ErrorGraph(nn.Module):
    """Sum the errors that k neighbors lend, each with a weight.

    The weights begin as a softmax of one logit for each neighbor, from its edge label, and one of doubt, from two
    numbers that no contrast changes: how far the k errors agree, and how far the neighbors differ beside the contrast.
    The neighbors' logits have mean zero: edge labels choose among neighbors, the doubt alone says whether to trust
    them. (Free, they learn to trust none, from photographs that the backbone knows.) Little trust then counts as none.

    Args:
        channels: width of the features, in which patches are matched and whose differences are the edge labels.
        scale: graph scale s.
        neighbors: k.
    """

    def __init__(self, channels: int, scale: int, neighbors: int) -> None:
        super().__init__()
        self.scale = scale
        self.weightnet = EdgeConditioning(channels)
        self.doubt = nn.Conv2d(2, 1, 3, padding=1)
        last = self.weightnet.get_submodule("2.0")
        assert isinstance(last, nn.Conv2d)
        for layer in (last, self.doubt):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.doubt.bias is not None:
            nn.init.constant_(self.doubt.bias, math.log(neighbors * (1 - _TRUST) / _TRUST) / _STEEPNESS)

    def forward(self, errors: Tensor, features: Tensor, index: Tensor, edge: Tensor) -> Tensor:
        """Return what to add to the backbone's output.

        Args:
            errors: (N, 3, H, W), the image minus what the backbone makes of the reduced one.
            features: (N, C, H, W), in which patches were matched.
            index: int32 (N, m1, m2, k) and
            edge: (N, k, C, m1, m2), both from `windowed_knn` of the features at both scales.

        Returns:
            (N, 3, s*H, s*W).
        """
        lent, weights = self.find(errors, features, index, edge)
        return self.correct(lent, weights)

    def find(self, errors: Tensor, features: Tensor, index: Tensor, edge: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `lend` and `neighbor_weights` do; arguments as in `forward`."""
        lent = self.lend(errors, index, fold_mean(query_means(errors), *errors.shape[-2:]))
        return lent, self.neighbor_weights(lent, features, edge)

    def lend(self, errors: Tensor, index: Tensor, own: Tensor) -> list[Tensor]:
        """Return the errors (N, 3, s*H, s*W) of every neighbor, folded.

        Args:
            errors, index: as in `forward`.
            own: (N, 3, H, W), the folded means of the query patches, which AdaPN gives every neighbor.
        """
        zero, one = statistics_of_nothing(errors, self.scale)
        own = self._enlarged(own)
        return [adapn_gather(errors, zero, one, neighbor, self.scale, ERROR_EPS) - own for neighbor in index.unbind(-1)]

    def neighbor_weights(self, lent: list[Tensor], features: Tensor, edge: Tensor) -> Tensor:
        """Return the neighbors' weights (N, k, H, W) at LR size; their sum is below 1.5."""
        H, W = features.shape[-2:]
        with full_precision(features.device):
            edge = edge.to(self.doubt.weight.dtype)
            logits = [self.weightnet(label / FEATURES_SCALE, H, W) for label in edge.unbind(1)]
            difference = fold_mean(edge.mean(dim=(1, 2))[:, None], H, W)
            return self.weigh(torch.cat(logits, dim=1), lent, features, difference)

    def weigh(self, logits: Tensor, lent: list[Tensor], features: Tensor, difference: Tensor) -> Tensor:
        """Return the neighbors' weights.

        Args:
            logits: (N, k, H, W).
            lent: of `lend`.
            features: (N, C, H, W).
            difference: (N, 1, H, W), the folded mean of the edge labels over neighbors and channels.
        """
        dtype = self.doubt.weight.dtype
        mean = sum(lent[1:], lent[0]) / len(lent)
        energy = [self._around(error.to(dtype).square()) for error in lent]
        agreement = self._around(mean.to(dtype).square()) / (sum(energy[1:], energy[0]) / len(lent) + _NO_ERROR)
        features = features.to(dtype)
        contrast = (features - _box(features, PATCH)).abs().mean(1, keepdim=True)
        relative = difference / (PATCH**2 * contrast + _NO_CONTRAST)
        doubt = _STEEPNESS * self.doubt(torch.cat([3 * agreement - 1, (relative + 0.05).log()], dim=1))
        logits = logits - logits.mean(dim=1, keepdim=True)
        return believed(torch.cat([logits, doubt], dim=1).softmax(dim=1)[:, :-1])

    def correct(self, lent: list[Tensor], weights: Tensor) -> Tensor:
        """Return the weighted sum."""
        shares = [self._enlarged(weights[:, r : r + 1]) * error for r, error in enumerate(lent)]
        return sum(shares[1:], shares[0])

    def _around(self, x: Tensor) -> Tensor:
        """Map (N, 3, s*H, s*W) to the mean over colors and 5 x 5 LR pixels, (N, 1, H, W)."""
        return _box(F.avg_pool2d(x.mean(1, keepdim=True), self.scale), _AROUND)

    def _enlarged(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=self.scale, mode="nearest")


def believed(weights: Tensor) -> Tensor:
    """Return the neighbors' weights (N, k, H, W) as they act: where their sum is small, none; where large, more."""
    trust = weights.sum(dim=1, keepdim=True)
    share = ((trust - _LITTLE_TRUST) / (_MUCH_TRUST - _LITTLE_TRUST)).clamp(0, 1)
    return weights * (_GIVEN * share.square() * (3 - 2 * share))


def _box(x: Tensor, side: int) -> Tensor:
    """Return the mean over side x side pixels around each, continued at the border."""
    reach = side // 2
    return F.avg_pool2d(F.pad(x, (reach, reach, reach, reach), mode="replicate"), side, 1)


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

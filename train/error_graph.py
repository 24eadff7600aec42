"""ErrorGraph: neighbors lend what the backbone gets wrong one scale below, where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import PATCH, STRIDE
from train.graph_agg import EdgeConditioning, fold_mean
from train.layers import full_precision
from train.ops import adapn_gather, windowed_knn

ERROR_EPS = 1e6
"""Variance that is added to the errors' own, some hundreds at most: AdaPN then leaves a neighbor's deviation."""
FEATURES_SCALE = 32.0
"""What features and edge labels are divided by: a trained EDSR's deviate by 8 to 10."""
SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Rows and columns by which the searches of `dense_knn` move the key map."""
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
            edge: (N, k, C, m1, m2), both from `dense_knn` of the features at both scales.

        Returns:
            (N, 3, s*H, s*W).
        """
        lent, weights = self.find(errors, features, index, edge)
        return self.correct(lent, weights)

    def find(self, errors: Tensor, features: Tensor, index: Tensor, edge: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what `lend` and `neighbor_weights` do; arguments as in `forward`."""
        lent = self.lend(errors, index)
        return lent, self.neighbor_weights(lent, features, edge)

    def lend(
        self, errors: Tensor, index: Tensor, fold: Callable[[Tensor, int, int], Tensor] = fold_mean
    ) -> list[Tensor]:
        """Return the errors (N, 3, s*H, s*W) of every neighbor, folded; none in the last row or column of an odd size.

        All neighbors are gathered at once, below each other, from a map that holds the errors of every search.

        Args:
            errors, index: as in `forward`.
            fold: what computes `fold_mean`.
        """
        s, (H, W), (m1, m2, k) = self.scale, errors.shape[-2:], index.shape[1:]
        stacked, columns = _stacked(errors, s, max(k, len(SHIFTS)))
        height = (H // s // STRIDE + 1) * STRIDE * s
        neighbors = []
        for neighbor in index.unbind(-1):
            # Patches overlap by a pixel: above the first row lies one whose neighbors are a patch further up, which
            # there say the same.
            rows = torch.cat([neighbor[:, :1], neighbor + columns], dim=1)
            neighbors.append(F.pad(rows, (0, stacked.shape[-1] // STRIDE - m2, 0, height // STRIDE - m1 - 1)))
        below = stacked.shape[-2] // STRIDE - k * (height // STRIDE)
        indices = F.pad(torch.cat(neighbors, dim=1), (0, 0, 0, below))
        zero, one = _statistics_of_nothing(stacked, s)
        own = self._enlarged(fold(_query_means(stacked), *stacked.shape[-2:]))
        folded = adapn_gather(stacked, zero, one, indices, s, ERROR_EPS) - own
        lent = [
            folded[..., s * (height * r + STRIDE) :, :][..., : s * STRIDE * m1, : s * STRIDE * m2] for r in range(k)
        ]
        return [F.pad(x, (0, s * (W - STRIDE * m2), 0, s * (H - STRIDE * m1))) for x in lent]

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


def dense_knn(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
    """Find neighbors as `windowed_knn` does, with a key patch at every pixel of the key map, not at every other one.

    Of four searches, each in the key map moved by one pixel or none and continued at its end, those k neighbors whose
    edge labels have the least sum.

    Args:
        query, key, k, window, scale: as in `windowed_knn`.

    Returns:
        index: int32 (N, m1, m2, k), (search * (n1 + 1) + row) * n2 + column, nearest first; `key_corner` reads it.
        edge: as of `windowed_knn`.
    """
    h, w = key.shape[-2:]
    nearest: tuple[Tensor, Tensor] | None = None
    for search, (down, right) in enumerate(SHIFTS):
        moved = F.pad(key, (0, right, 0, down), mode="replicate")[..., down:, right:]
        index, edge = windowed_knn(query, moved, k, window, scale)
        index = index.permute(0, 3, 1, 2) + search * (h // STRIDE + 1) * (w // STRIDE)
        nearest = (index, edge) if nearest is None else _nearest(*nearest, index, edge)
    assert nearest is not None
    return nearest[0].permute(0, 2, 3, 1), nearest[1]


def _nearest(index: Tensor, edge: Tensor, more_index: Tensor, more_edge: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest half of two lists of neighbors: index (N, k, m1, m2), edge (N, k, C, m1, m2)."""
    k = index.shape[1]
    index, edge = torch.cat([index, more_index], dim=1), torch.cat([edge, more_edge], dim=1)
    chosen = edge.sum(2).topk(k, dim=1, largest=False).indices
    edges = [edge.gather(1, one[:, None, None].expand(-1, 1, edge.shape[2], -1, -1)) for one in chosen.unbind(1)]
    return index.gather(1, chosen), torch.cat(edges, dim=1)


def key_corner(number: int, height: int, width: int) -> tuple[int, int]:
    """Return row and column of the upper left pixel of a key patch of `dense_knn`, in a key map of that size."""
    rows, columns = height // STRIDE + 1, width // STRIDE
    down, right = SHIFTS[number // (rows * columns)]
    return STRIDE * (number // columns % rows) + down, STRIDE * (number % columns) + right


def _stacked(errors: Tensor, scale: int, slots: int) -> tuple[Tensor, int]:
    """Return a row of zero blocks, the errors moved as each search's key map, below each other, and room for `slots`.

    Beyond the errors are zeros. Also returns n2, the key patches in a row: they and the rows are `dense_knn`'s.
    """
    (H, W), block = errors.shape[-2:], scale * STRIDE
    height, width = (H // block + 1) * block, (W // block + 1) * block - 1
    maps = [
        F.pad(errors[..., scale * down :, scale * right :], (0, 2 * block, 0, 2 * block))[..., :height, :width]
        for down, right in SHIFTS
    ]
    return F.pad(torch.cat(maps, dim=2), (0, 0, block, height * (slots - len(SHIFTS)))), W // block


def _statistics_of_nothing(errors: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation for `adapn_gather` that leave a key patch as it is, but for the query's mean."""
    N, C, H, W = errors.shape
    shape = (N, H // scale // STRIDE, W // scale // STRIDE, C)
    return errors.new_zeros(shape), errors.new_full(shape, ERROR_EPS**0.5)


def _query_means(errors: Tensor) -> Tensor:
    """Return the mean of every 3 x 3 query patch: (N, 3, H, W) to (N, 3, m1, m2)."""
    H, W = errors.shape[-2:]
    m1, m2 = H // STRIDE, W // STRIDE  # an even map has one zero pixel appended
    padded = F.pad(errors, (0, STRIDE * m2 + 1 - W, 0, STRIDE * m1 + 1 - H))
    return F.avg_pool2d(padded, PATCH, STRIDE)

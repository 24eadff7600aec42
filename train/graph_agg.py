"""GraphAgg: aggregate the neighbors that the graph found (paper section 3.2)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import EMBEDDING_CHANNELS, PATCH, STRIDE
from train.layers import ResidualBlock, conv, full_precision
from train.neighbors import fold_neighbors
from train.ops import adapn_gather, key_statistics

ADAPN_EPS = 1e-5


class EdgeConditioning(nn.Sequential):
    """ECN: one logit per pixel from a neighbor's edge label; paper equation 7.

    conv(64->64), residual block, conv(64->1), all 1 x 1, act on the *folded* edge map. Folding is a mean, so whatever
    is linear before the one ReLU runs on the quarter-size patch grid, and what is linear after it becomes one
    64 -> 1 product: the same numbers for a tenth of the work. `width` is another number of channels than 64.
    """

    def __init__(self, width: int = EMBEDDING_CHANNELS) -> None:
        super().__init__(conv(width, width, 1), ResidualBlock(width, kernel=1), conv(width, 1, 1))

    def forward(self, edge: Tensor, height: int, width: int) -> Tensor:  # type: ignore[override]
        """Map edge labels (N, width, m1, m2) to logits (N, 1, height, width)."""
        block = cast(ResidualBlock, self[1])
        first, hidden, out, last = (
            cast(nn.Conv2d, module)
            for module in (self.get_submodule("0.0"), block.body[0], block.body[2], self.get_submodule("2.0"))
        )
        embedded = first(edge)
        folded = fold_mean(torch.cat([hidden(embedded), last(embedded)], dim=1), height, width)
        weight = torch.matmul(last.weight.flatten(1), out.weight.flatten(1)) * block.scale
        bias = torch.mv(last.weight.flatten(1), cast(Tensor, out.bias)) * block.scale
        residual = F.conv2d(F.relu(folded[:, :-1]), weight[..., None, None], bias)
        return folded[:, -1:] + residual


class GraphAgg(nn.Module):
    """Fold k renormalised neighbors per query into features at LR and at graph scale.

    Args:
        channels: width of the features.
        scale: graph scale s; 1 (the same-scale comparison of table 2) leaves out the features at graph scale.
        adapn: whether neighbors take the query's statistics.
        ecn: whether neighbors are weighed by their edge labels.
    """

    def __init__(self, channels: int, scale: int, *, adapn: bool = True, ecn: bool = True) -> None:
        super().__init__()
        self.scale, self.adapn, self.ecn = scale, adapn, ecn
        self.knn_downsample = nn.Sequential(
            conv(channels, channels, 5, scale, relu=True), conv(channels, channels, relu=True), conv(channels, channels)
        )
        if ecn:
            self.weightnet_lr = EdgeConditioning()
            if scale > 1:
                self.weightnet_hr = EdgeConditioning()

    def forward(self, features: Tensor, index: Tensor, edge: Tensor) -> tuple[Tensor, Tensor | None]:
        """Aggregate the neighbors.

        Args:
            features: (N, C, H, W) backbone features.
            index: int32 (N, m1, m2, k) and
            edge: (N, k, 64, m1, m2), both from `windowed_knn`.

        Returns:
            f_lr (N, C, H, W) and f_hr (N, C, s*H, s*W), which is None at scale 1.
        """
        H, W = features.shape[-2:]
        k, upscaling = edge.shape[1], self.scale > 1
        weight_lr = weight_hr = [edge.new_full((), 1 / k)] * k
        if self.ecn:
            with full_precision(features.device):
                weight_lr = _neighbor_weights(self.weightnet_lr, edge, H, W)
                if upscaling:
                    weight_hr = _neighbor_weights(self.weightnet_hr, edge, H, W)
                    weight_hr = [F.interpolate(weight, scale_factor=self.scale, mode="nearest") for weight in weight_hr]
        statistics = key_statistics(features, self.scale, ADAPN_EPS) if self.adapn else None
        # One neighbor after another: only one map of s*H x s*W lives at a time.
        f_lr = f_hr = None
        for r in range(k):
            folded = self._fold(features, statistics, index[..., r])
            lr = weight_lr[r] * self.knn_downsample(folded)
            f_lr = lr if f_lr is None else f_lr + lr
            if upscaling:
                hr = weight_hr[r] * folded
                f_hr = hr if f_hr is None else f_hr + hr
        assert f_lr is not None
        return f_lr, f_hr

    def neighbor_weights(self, edge: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return what the neighbors weigh in f_lr and in f_hr, each (N, k, height, width) at LR size; sums are 1.

        Args:
            edge: (N, k, 64, m1, m2) of `windowed_knn`.
            height, width: of the features.
        """
        if not self.ecn:
            equal = edge.new_full((edge.shape[0], edge.shape[1], height, width), 1 / edge.shape[1])
            return equal, equal
        lr, hr = (_neighbor_weights(net, edge, height, width) for net in (self.weightnet_lr, self.weightnet_hr))
        return torch.cat(lr, dim=1), torch.cat(hr, dim=1)

    def _fold(self, features: Tensor, statistics: tuple[Tensor, Tensor] | None, index: Tensor) -> Tensor:
        if statistics is not None:
            return adapn_gather(features, *statistics, index, self.scale, ADAPN_EPS)
        return fold_neighbors(features, index, self.scale)


def _neighbor_weights(net: EdgeConditioning, edge: Tensor, height: int, width: int) -> list[Tensor]:
    """Return the weight (N, 1, height, width) of each neighbor; they add up to 1."""
    logits = torch.cat([net(label, height, width) for label in edge.unbind(1)], dim=1)
    return list(logits.softmax(dim=1).split(1, dim=1))


def fold_mean(patches: Tensor, height: int, width: int) -> Tensor:
    """Fold 3 x 3 patches that are constant inside, at stride 2: the mean where they overlap.

    An odd pixel has one patch over it, an even one two, per direction: linear interpolation between patch centres,
    continued flat at the border.

    Args:
        patches: (N, C, m1, m2).
        height, width: size of the map, at most 2 * m1 + 1 and 2 * m2 + 1.

    Returns:
        (N, C, height, width).
    """
    m1, m2 = patches.shape[-2:]
    size = (STRIDE * m1 + PATCH, STRIDE * m2 + PATCH)
    padded = F.pad(patches, (1, 1, 1, 1), mode="replicate")
    return F.interpolate(padded, size=size, mode="bilinear", align_corners=True)[..., 1 : 1 + height, 1 : 1 + width]

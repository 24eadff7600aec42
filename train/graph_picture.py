"""A second loss while training: what the graph alone can paint.

The fusions read the backbone beside the graph. Where the backbone is trained already, the graph's part starts small and
its gradient says little. A picture made of the graph's HR features alone tells the first half of the backbone which
features are worth lending from one place of the image to another.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from train.model import IGNN


class GraphPicture(nn.Conv2d):
    """One convolution from the graph's HR features of the network's last pass to RGB 0..255 at the graph's scale.

    Args:
        net: a network with graph "graphagg"; it is watched by a hook, and not changed.
    """

    def __init__(self, net: IGNN) -> None:
        super().__init__(net.config.channels, 3, 3, padding=1)
        self._features: Tensor | None = None
        self._mean = net.mean
        net.gcn.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        self._features = output[1]

    def forward(self) -> Tensor:  # type: ignore[override]
        """Return the picture (N, 3, s * H, s * W) of the pass just made."""
        features, self._features = self._features, None
        assert features is not None, "the network has made no pass"
        return super().forward(features) + self._mean


def graph_loss(picture: Tensor, hr: Tensor) -> Tensor:
    """Return the L1 distance to the photograph, which at x4 is twice as large as the picture and is averaged down."""
    return (picture - F.adaptive_avg_pool2d(hr, (picture.shape[-2], picture.shape[-1]))).abs().mean()

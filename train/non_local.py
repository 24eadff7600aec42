"""The non-local block that the paper compares with (table 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NonLocal(nn.Module):
    """x + conv(softmax(theta(x) phi(x)) g(x)) over all pairs of pixels (Wang et al., CVPR 2018, embedded Gaussian).

    Half the width inside; the last convolution starts at zero, so that the block starts as the identity. Time grows
    with the square of the number of pixels, memory (`scaled_dot_product_attention`) with the number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.width = max(1, channels // 2)
        self.project = nn.Conv2d(channels, 3 * self.width, 1)
        self.out = nn.Conv2d(self.width, channels, 1)
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        pixels = self.project(x).flatten(2).mT.unsqueeze(1)  # (N, 1, H * W, 3 * width)
        attended = F.scaled_dot_product_attention(*pixels.split(self.width, dim=-1))
        return x + self.out(torch.unflatten(attended.squeeze(1).mT, 2, x.shape[-2:]))

"""The convolutional building blocks, with the released code's parameter names."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, relu: bool = False) -> nn.Sequential:
    """Return a "same"-padded convolution, followed by a ReLU if asked."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)]
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """x + scale * conv(relu(conv(x))) (EDSR's block: no normalisation)."""

    def __init__(self, channels: int, kernel: int = 3, scale: float = 0.1) -> None:
        super().__init__()
        pad = kernel // 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=pad),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, padding=pad),
        )
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        residual = self.body(x)
        if self.scale != 1.0:
            residual = residual * self.scale
        return x + residual


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """Return convolution and pixel shuffle: (N, C, H, W) -> (N, C, scale*H, scale*W)."""
    return nn.Sequential(nn.Conv2d(channels, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that ends autocast, where there is one: distances and softmaxes do not bear bfloat16."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()

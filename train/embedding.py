"""The frozen VGG19 embedding that patches are matched in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.config import EMBEDDING_CHANNELS

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class VGGEmbedding(nn.Module):
    """VGG19 up to conv1_2 and its ReLU, at full resolution (paper section 3.1; ImageNet weights, never trained)."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, EMBEDDING_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1),
            nn.ReLU(),
        )
        self.sub_mean = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            std = torch.tensor(_STD)
            self.sub_mean.weight.copy_(torch.diag(1 / std).view(3, 3, 1, 1))
            self.sub_mean.bias.copy_(-torch.tensor(_MEAN) / std)  # type: ignore[union-attr]
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) RGB 0..255 to (N, 64, H, W); no gradient passes."""
        return self.model(self.sub_mean(image / 255))

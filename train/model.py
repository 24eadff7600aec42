"""IGNN: internal graph neural network for image super-resolution (Zhou et al., NeurIPS 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import IGNNConfig
from train.embedding import VGGEmbedding
from train.error_graph import ErrorGraph
from train.graph_agg import GraphAgg
from train.layers import ResidualBlock, conv, full_precision, upsampler
from train.non_local import NonLocal
from train.ops import windowed_knn
from train.resize import downsample_bicubic

_RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of the DIV2K training set, RGB 0..1 (EDSR's)."""


class IGNN(nn.Module):
    """The network; parameter names are the released code's.

    Attributes:
        config: what distinguishes this network from others.
    """

    mean: Tensor

    def __init__(self, config: IGNNConfig) -> None:
        super().__init__()
        self.config = config
        C, s = config.channels, config.graph_scale
        self.register_buffer("mean", 255 * torch.tensor(_RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.embedding = VGGEmbedding()
        self.head = conv(3, C)
        self.body1 = nn.Sequential(*self._blocks(config.graph_after))
        if config.graph in ("graphagg", "same-scale"):
            self.gcn = GraphAgg(C, s if config.graph == "graphagg" else 1, adapn=config.adapn, ecn=config.ecn)
            self.fuse_b = nn.Sequential(conv(2 * C, C, relu=True), conv(C, C))
        elif config.graph == "errors":
            self.errors = ErrorGraph(C, s, config.neighbors)
        elif config.graph == "non-local":
            self.non_local = NonLocal(C)
        self.body2 = nn.Sequential(*self._blocks(config.blocks - config.graph_after), conv(C, C))
        self.upsample = upsampler(C, s)
        if config.graph == "graphagg":
            self.fuse_up = nn.Sequential(conv(2 * C, C, relu=True), conv(C, C, relu=True))
        final = [upsampler(C, 2)] if config.scale == 4 else []
        self.tail = nn.Sequential(*final, conv(C, 3))

    def _blocks(self, count: int) -> list[ResidualBlock]:
        return [ResidualBlock(self.config.channels, scale=self.config.residual_scale) for _ in range(count)]

    def forward(self, lr: Tensor, lr_down: Tensor | None = None) -> Tensor:
        """Upscale images.

        Args:
            lr: (N, 3, H, W) RGB 0..255, any H and W from 1 up.
            lr_down: (N, 3, H // s, W // s), the LR image reduced by the graph scale s; made inside if not given.
                Pass it only to compare with other implementations.

        Returns:
            (N, 3, scale * H, scale * W) RGB, nominally 0..255, neither rounded nor clamped.
        """
        if self.config.graph == "none":
            return self.forward_backbone(lr)
        H, W = lr.shape[-2:]
        lr, scale = self.padded(lr), self.config.scale
        if self.config.graph == "errors":
            sr, *found = self.find_errors(lr)
            return self.project_back(sr + self.errors(*found), lr)[..., : scale * H, : scale * W]
        x = self._begin(lr)
        features, f_hr = self._aggregate(self.body1(x), lr, lr_down)
        up = self.upsample(x + self.body2(features))
        if f_hr is not None:
            up = self.fuse_up(torch.cat([up, f_hr], dim=1))
        return self._finish(up)[..., : scale * H, : scale * W]

    def padded(self, lr: Tensor) -> Tensor:
        """Return images continued at the right and below to the least size that has k neighbors."""
        (H, W), least = lr.shape[-2:], self.config.minimum_size
        return F.pad(lr, (0, torch.sym_max(0, least - W), 0, torch.sym_max(0, least - H)), mode="replicate")

    def _aggregate(self, features: Tensor, lr: Tensor, lr_down: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the features for the second half of the body, and those at graph scale if there are any."""
        if self.config.graph == "non-local":
            return self.non_local(features), None
        if lr_down is None:
            lr_down = self.reduce(lr)
        index, edge = self.find_neighbors(lr, lr_down)
        f_lr, f_hr = self.gcn(features, index, edge)
        return self.fuse_b(torch.cat([features, f_lr], dim=1)), f_hr

    def find_errors(self, lr: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the backbone's output and what `ErrorGraph` corrects it by.

        Args:
            lr: (N, 3, H, W) RGB 0..255, no smaller than `config.minimum_size`.

        Returns:
            sr: (N, 3, s*H, s*W), the backbone's.
            errors: (N, 3, H, W), the image minus what the backbone makes of the reduced one.
            features: (N, C, H, W), the backbone's before the graph.
            index, edge: `windowed_knn` of such features at both scales; no gradient passes.
        """
        features, sr = self._backbone(lr)
        below, sr_below = self._backbone(self.reduce(lr))
        config, (H, W) = self.config, lr.shape[-2:]
        more = config.graph_scale - 1  # as many rows and columns the reduction may have cut; no key patch reads them
        errors = lr - F.pad(sr_below, (0, more, 0, more), mode="replicate")[..., :H, :W]
        with torch.no_grad(), full_precision(lr.device):
            query, key = (x.to(lr.dtype) for x in (features, below))
            index, edge = windowed_knn(query, key, config.neighbors, config.window, config.graph_scale)
        return sr, errors, features, index, edge

    def _backbone(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features before the graph, and the output without one."""
        x = self._begin(lr)
        features = self.body1(x)
        up = self.upsample(x + self.body2(features))
        return features, self._finish(F.relu(up) if self.config.scale == 4 else up)

    def _begin(self, lr: Tensor) -> Tensor:
        """Return the first features of an image. The convolution reads pixels, which bfloat16 rounds to 1."""
        with full_precision(lr.device):
            return self.head(lr - self.mean)

    def _finish(self, up: Tensor) -> Tensor:
        """Return the image of the features at HR. The last convolution makes pixels, which bfloat16 rounds as well."""
        *before, last = self.tail
        for layer in before:
            up = layer(up)
        with full_precision(up.device):
            return last(up.to(self.mean.dtype)) + self.mean

    def forward_backbone(self, lr: Tensor) -> Tensor:
        """Upscale as plain EDSR does: everything but the graph and the convolutions that fuse it in.

        The paper initialises the backbone from such a network; `train.fit` trains it first. At x4 the ReLU that ends
        `fuse_up` stays, so that the whole network can begin exactly where its backbone ended (`train.warm_start`).

        Args:
            lr: (N, 3, H, W) RGB 0..255.

        Returns:
            (N, 3, scale * H, scale * W).
        """
        return self._backbone(lr)[1]

    def reduce(self, lr: Tensor) -> Tensor:
        """Return the LR image reduced by the graph scale, clamped to 0..255: what the keys are embedded from."""
        with full_precision(lr.device):
            return downsample_bicubic(lr, self.config.graph_scale).clamp(0, 255)

    def project_back(self, sr: Tensor, lr: Tensor) -> Tensor:
        """Return an output whose reduction is nearer to its input: one step of back-projection (Irani & Peleg, 1991).

        Args:
            sr: (N, 3, s*H, s*W), nominally 0..255, of a network whose scale is its graph's.
            lr: (N, 3, H, W) RGB 0..255.
        """
        lacking = lr - self.reduce(sr.clamp(0, 255))
        return sr + F.interpolate(lacking, scale_factor=self.config.graph_scale, mode="nearest")

    def find_neighbors(self, lr: Tensor, lr_down: Tensor) -> tuple[Tensor, Tensor]:
        """Construct the graph: `windowed_knn` of the embedded images; no gradient passes."""
        config = self.config
        with torch.no_grad(), full_precision(lr.device):
            query = self.embedding(lr)
            if config.graph == "same-scale":
                # The nearest is the patch itself.
                index, edge = windowed_knn(query, query, config.neighbors + 1, config.window, 1)
                return index[..., 1:], edge[:, 1:]
            return windowed_knn(query, self.embedding(lr_down), config.neighbors, config.window, config.graph_scale)

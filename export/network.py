"""The network as the exporter sees it: the same function of the same weights, laid out for the runtimes.

`train` keeps the network in the shape in which it learns and loads; here what is linear is composed beforehand, and no
map is made that a convolution can do without. Nothing of it changes a result by more than rounding, and every export
is compared with the network itself.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import IGNN
from train.error_graph import FEATURES_SCALE, query_means
from train.graph_agg import ADAPN_EPS, EdgeConditioning
from train.layers import ResidualBlock
from train.ops import adapn_gather, key_statistics


class ExportedIGNN(nn.Module):
    """What is traced: `lr` (N, 3, H, W) to `sr` (N, 3, scale*H, scale*W), RGB 0..255."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.net = net
        self.edge_weights = EdgeWeights(net.gcn.weightnet_lr, net.gcn.weightnet_hr)
        self.fuse_b = SumConv(cast(nn.Conv2d, net.fuse_b.get_submodule("0.0")))
        self.fuse_up = SumConv(cast(nn.Conv2d, net.fuse_up.get_submodule("0.0")))

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale images."""
        net, scale = self.net, self.net.config.scale
        H, W = lr.shape[-2:]
        lr = net.padded(lr)
        x = net.head(lr - net.mean)
        features = net.body1(x)
        index, edge = net.find_neighbors(lr, net.reduce(lr))
        f_lr, f_hr = self.aggregate(features, index, edge)
        deep = x + net.body2(net.fuse_b[1](F.relu(self.fuse_b(features, f_lr))))
        fused = net.fuse_up[1](F.relu(self.fuse_up(net.upsample(deep), f_hr)))
        sr = net.tail(fused) + net.mean
        return sr[..., : scale * H, : scale * W]

    def aggregate(self, features: Tensor, index: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_lr and f_hr as `train.graph_agg.GraphAgg` does."""
        s = self.net.config.graph_scale
        H, W = features.shape[-2:]
        weight_lr, weight_hr = self.edge_weights(edge, H, W)
        statistics = key_statistics(features, s, ADAPN_EPS)
        f_lr = f_hr = None
        for r in range(self.net.config.neighbors):
            neighbor = index[..., r]
            if f_lr is not None and f_hr is not None:
                neighbor = _after(neighbor, f_lr, f_hr)
            folded = adapn_gather(features, *statistics, neighbor, s, ADAPN_EPS)
            lr = weight_lr[:, r : r + 1] * self.net.gcn.knn_downsample(folded)
            # Channels last: the transposition that ends the body of AdaPNGather cancels; the sum is transposed once.
            weight = F.interpolate(weight_hr[:, r : r + 1], scale_factor=s, mode="nearest")
            hr = weight.reshape(-1, s * H, s * W, 1) * folded.permute(0, 2, 3, 1)
            f_lr = lr if f_lr is None else f_lr + lr
            f_hr = hr if f_hr is None else f_hr + hr
        assert f_lr is not None
        assert f_hr is not None
        return f_lr, f_hr.permute(0, 3, 1, 2)


class ExportedErrorNet(nn.Module):
    """The same of a network whose neighbors lend errors (`train.error_graph`)."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.net = net
        self.edge_logits = EdgeLogits(net.errors.weightnet)

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale images."""
        scale = self.net.config.scale
        H, W = lr.shape[-2:]
        lr = self.net.padded(lr)
        sr, errors, features, index, edge = self.net.find_errors(lr)
        graph = self.net.errors
        lent = graph.lend(errors, index, _fold_mean(query_means(errors), *errors.shape[-2:]))
        (logits,) = self.edge_logits(edge / FEATURES_SCALE, *errors.shape[-2:])
        difference = _fold_mean(edge.mean(dim=(1, 2))[:, None], *errors.shape[-2:])
        correction = graph.correct(lent, graph.weigh(logits, lent, features, difference))
        return self.net.project_back(sr + correction, lr)[..., : scale * H, : scale * W]


class EdgeLogits(nn.Module):
    """Edge-conditioned networks as one: edge labels to the neighbors' logits, at LR size.

    The networks are linear before and after their one ReLU, so that two products remain of five, and both networks'
    products are made at once. 1 x 1 convolutions commute with the padding and the fold.
    """

    def __init__(self, *networks: EdgeConditioning) -> None:
        super().__init__()
        hidden, hidden_bias, direct, direct_bias, out, out_bias = [], [], [], [], [], []
        for network in networks:
            block = cast(ResidualBlock, network[1])
            layers = [cast(nn.Conv2d, network.get_submodule(name)) for name in ("0.0", "1.body.0", "1.body.2", "2.0")]
            w1, w2, w3, w4 = (layer.weight.detach().double().flatten(1) for layer in layers)
            b1, b2, b3, b4 = (cast(Tensor, layer.bias).detach().double() for layer in layers)
            hidden.append(w2 @ w1)
            hidden_bias.append(w2 @ b1 + b2)
            direct.append(w4 @ w1)
            direct_bias.append(w4 @ b1 + b4)
            out.append(block.scale * w4 @ w3)
            out_bias.append(block.scale * w4 @ b3)
        self.hidden = _conv(torch.cat(hidden), torch.cat(hidden_bias))
        self.direct = _conv(torch.cat(direct), torch.cat(direct_bias))
        self.out = _conv(torch.block_diag(*out), torch.cat(out_bias))

    def forward(self, edge: Tensor, height: int, width: int) -> list[Tensor]:
        """Map edge labels (N, k, E, m1, m2) to one (N, k, height, width) of logits for each network."""
        logits = []
        for label in edge.unbind(1):
            label = F.pad(label, (1, 0, 1, 0), mode="replicate")
            folded = _upsample_twice(self.direct(label)) + self.out(F.relu(_upsample_twice(self.hidden(label))))
            logits.append(folded[..., 1 : 1 + height, 1 : 1 + width])
        networks = logits[0].shape[1]
        return [torch.cat([x[:, i : i + 1] for x in logits], dim=1) for i in range(networks)]


class EdgeWeights(EdgeLogits):
    """The same, to the neighbors' weights."""

    def forward(self, edge: Tensor, height: int, width: int) -> list[Tensor]:
        """Map edge labels (N, k, E, m1, m2) to one (N, k, height, width) of weights for each network."""
        return [logits.softmax(dim=1) for logits in super().forward(edge, height, width)]


class SumConv(nn.Module):
    """A convolution of two concatenated maps, as the sum of two convolutions: the concatenation never exists."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        first, second = conv.weight.detach().chunk(2, dim=1)
        self.first = _conv(first, conv.bias)
        self.second = _conv(second, None)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two (N, C, H, W) to one (N, C', H, W)."""
        return self.first(first) + self.second(second)


def _conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    if weight.ndim == 2:
        weight = weight[..., None, None]
    outputs, inputs, kernel, _ = weight.shape
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias is not None)
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv


def _fold_mean(patches: Tensor, height: int, width: int) -> Tensor:
    """Return what `train.graph_agg.fold_mean` does."""
    return _upsample_twice(F.pad(patches, (1, 0, 1, 0), mode="replicate"))[..., 1 : 1 + height, 1 : 1 + width]


def _upsample_twice(x: Tensor) -> Tensor:
    """Interpolate linearly to (N, C, 2H, 2W), pixel y from y / 2: the fold of constant 3 x 3 patches at stride 2.

    PyTorch has no such mode; ONNX has, by a factor that ONNX Runtime can keep in its blocked layout.
    """
    N, C, H, W = x.shape
    return torch.onnx.ops.symbolic(
        "Resize",
        [x, None, torch.tensor([1.0, 1.0, 2.0, 2.0])],
        {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
        dtype=x.dtype,
        shape=(N, C, 2 * H, 2 * W),
    )


def _after(index: Tensor, *done: Tensor) -> Tensor:
    """Return `index` unchanged, by a reshape to its own shape in which the batch size is read from other tensors.

    ONNX Runtime orders what is independent as it likes: it would fold every neighbor before it uses the first one, and
    hold all those maps at once. A shape can be read only of a tensor that is there, so this asks it to finish one
    neighbor before it begins the next; other runtimes know the shapes beforehand and see nothing.
    """
    N, m1, m2 = index.shape
    batch = [_shape_op("Shape", [x], {"start": 0, "end": 1}, (1,)) for x in done]
    same = _shape_op("Max", batch, {}, (1,))
    grid = _shape_op("Shape", [index], {"start": 1, "end": 3}, (2,))
    shape = _shape_op("Concat", [same, grid], {"axis": 0}, (3,))
    return torch.onnx.ops.symbolic("Reshape", [index, shape], {}, dtype=index.dtype, shape=(N, m1, m2))


def _shape_op(name: str, inputs: list[Tensor], attributes: dict[str, Any], shape: tuple[int, ...]) -> Tensor:
    return torch.onnx.ops.symbolic(name, inputs, attributes, dtype=torch.int64, shape=shape)

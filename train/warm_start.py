"""Begin the whole network where its trained backbone ended, instead of at random fusions; and the other way round."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from train.model import IGNN

_TAIL_READS = 3 * 9
"""Numbers that the last convolution makes of a pixel's features: 3 colors at 9 offsets."""


@torch.no_grad()
def pass_backbone_through(net: IGNN, lr: Tensor) -> None:
    """Set the fusions so that the network's output is `net.forward_backbone`'s, whatever the graph says.

    The graph enters with weight zero, from where its gradient lets it grow. At random fusions the network would
    forget most of its backbone first.

    `fuse_b` is conv, ReLU, conv: channels are lifted above zero before the ReLU and lowered after it. `fuse_up` ends
    in a ReLU, which the backbone of x4 has as well. At x2 and x3 the convolution after it reads only 27 numbers a
    pixel (3 colors at 9 offsets), whose positive and negative parts take 54 channels; with fewer channels `fuse_up`
    stays random. The same-scale graph of table 2 enters at LR size only, and has no `fuse_up`.

    Args:
        net: a network with graph "graphagg" or "same-scale" and a trained backbone; changed in place.
        lr: (N, 3, H, W) RGB 0..255, photographs to measure how far the features reach below zero.
    """
    C = net.config.channels
    features = net.body1(net.head(lr - net.mean))
    lift = -2 * features.amin(dim=(0, 2, 3)).clamp(max=0)  # other photographs reach further
    first, second = _convolutions(net.fuse_b)
    identity = torch.eye(C)[..., None, None]
    without_graph = torch.cat([identity, torch.zeros_like(identity)], dim=1)
    _set_center(first, without_graph, lift)
    _set_center(second, identity, -lift)

    if net.config.graph == "same-scale":
        return
    first, second = _convolutions(net.fuse_up)
    if net.config.scale == 4:
        _set_center(first, without_graph, torch.zeros(C))
        _set_center(second, identity, torch.zeros(C))
        return
    needed = _TAIL_READS
    if 2 * needed > C:
        return
    tail = cast(nn.Conv2d, cast(nn.Sequential, net.tail[0])[0])
    read = tail.weight.permute(2, 3, 0, 1).reshape(needed, C)  # what each offset and color takes of the features
    signed = torch.cat([read, -read])
    first.weight[: 2 * needed] = 0
    first.weight[: 2 * needed, :C, 1, 1] = signed
    cast(Tensor, first.bias)[: 2 * needed] = 0
    _set_center(second, identity, torch.zeros(C))
    tail.weight.copy_(_passing(tail.weight))


@torch.no_grad()
def take_backbone_out(net: IGNN) -> None:
    """Set the last convolution back to what `pass_backbone_through` moved into `fuse_up`.

    So a backbone can be trained on from a whole network of x2 or x3; at x4 the last convolution was not touched. What
    the whole network's training changed in the fusions besides is lost. A network whose fusion was never set that way
    (other ways of training, fewer channels) is left as it is.

    Args:
        net: a network with weights; changed in place.
    """
    C, needed = net.config.channels, _TAIL_READS
    if net.config.graph != "graphagg" or net.config.scale == 4 or 2 * needed > C:
        return
    first = _convolutions(net.fuse_up)[0].weight[: 2 * needed, :C]
    tail = cast(nn.Conv2d, cast(nn.Sequential, net.tail[0])[0])
    read = (first[:needed, :, 1, 1] - first[needed:, :, 1, 1]) / 2
    if not (_close(tail.weight, _passing(tail.weight)) and _close(first[..., 1, 1], torch.cat([read, -read]))):
        return
    tail.weight.copy_(read.reshape(3, 3, 3, C).permute(2, 3, 0, 1))


def plain_backbone(net: IGNN) -> IGNN:
    """Return the backbone as a network of its own: graph "none", the same weights, the output of `forward_backbone`."""
    plain = IGNN(replace(net.config, graph="none")).eval()
    weights = net.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    return plain


def _passing(tail: Tensor) -> Tensor:
    """Return weights like the last convolution's that put together what `fuse_up` read of the features."""
    passing = torch.zeros_like(tail)
    for number in range(_TAIL_READS):
        offset, color = divmod(number, 3)
        passing[color, number, offset // 3, offset % 3] = 1
        passing[color, _TAIL_READS + number, offset // 3, offset % 3] = -1
    return passing


def _close(actual: Tensor, expected: Tensor) -> bool:
    """Return whether training has changed weights a little only."""
    return bool((actual - expected).norm() < 0.1 * expected.norm())


def _convolutions(fusion: nn.Sequential) -> tuple[nn.Conv2d, nn.Conv2d]:
    first, second = (cast(nn.Conv2d, cast(nn.Sequential, part)[0]) for part in fusion)
    return first, second


def _set_center(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Make a 3 x 3 convolution a 1 x 1 one."""
    convolution.weight.zero_()
    convolution.weight[:, :, 1:2, 1:2] = weight
    cast(Tensor, convolution.bias).copy_(bias)

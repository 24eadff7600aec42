"""A whole network that begins where its backbone ended."""

from __future__ import annotations

import pytest
import torch

from train import IGNN, IGNNConfig
from train.warm_start import pass_backbone_through


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_output_is_the_backbones_and_the_graph_can_grow(scale: int) -> None:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=scale, channels=56, blocks=2, graph_after=1))
    lr = 255 * torch.rand(2, 3, 20, 23)
    with torch.no_grad():
        expected = net.forward_backbone(lr)
        assert (net(lr) - expected).abs().max() > 1
        pass_backbone_through(net, lr)
        torch.testing.assert_close(net(lr), expected, atol=1e-3, rtol=0)
    net(lr).square().mean().backward()
    for fusion in (net.fuse_b, net.fuse_up):
        from_graph = fusion.get_submodule("0.0").weight.grad[:, 56:]
        assert from_graph.abs().max() > 0


def test_the_same_scale_graph_begins_there_too() -> None:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=2, channels=8, blocks=2, graph_after=1, graph="same-scale"))
    lr = 255 * torch.rand(2, 3, 20, 23)
    with torch.no_grad():
        expected = net.forward_backbone(lr)
        assert (net(lr) - expected).abs().max() > 1
        pass_backbone_through(net, lr)
        torch.testing.assert_close(net(lr), expected, atol=1e-3, rtol=0)
    net(lr).square().mean().backward()
    assert net.fuse_b.get_submodule("0.0").weight.grad[:, 8:].abs().max() > 0

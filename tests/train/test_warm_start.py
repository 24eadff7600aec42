"""A whole network that begins where its backbone ended."""

from __future__ import annotations

import pytest
import torch

from train import IGNN, IGNNConfig
from train.warm_start import pass_backbone_through


@pytest.mark.parametrize(
    ("scale", "graph", "fusions"),
    [(scale, "graphagg", ("fuse_b", "fuse_up")) for scale in (2, 3, 4)] + [(2, "same-scale", ("fuse_b",))],
)
def test_output_is_the_backbones_and_the_graph_can_grow(scale: int, graph: str, fusions: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=scale, channels=56, blocks=2, graph_after=1, graph=graph))
    lr = 255 * torch.rand(2, 3, 20, 23)
    with torch.no_grad():
        expected = net.forward_backbone(lr)
        assert (net(lr) - expected).abs().max() > 1
        pass_backbone_through(net, lr)
        torch.testing.assert_close(net(lr), expected, atol=1e-3, rtol=0)
    net(lr).square().mean().backward()
    for fusion in fusions:
        from_graph = net.get_submodule(f"{fusion}.0.0").weight.grad[:, 56:]
        assert from_graph.abs().max() > 0

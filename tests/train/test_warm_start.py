"""A whole network that begins where its backbone ended, and a backbone taken out of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train import IGNN, IGNNConfig, load_checkpoint
from train.warm_start import pass_backbone_through, take_backbone_out

WEIGHTS = Path(__file__).resolve().parents[2] / "train" / "weights"


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
        pass_backbone_through(net, 64 + 0.7 * (lr - 64))  # of less contrast, so that features reach less far
        torch.testing.assert_close(net(lr), expected, atol=1e-3, rtol=0)
    net(lr).square().mean().backward()
    for fusion in fusions:
        from_graph = net.get_submodule(f"{fusion}.0.0").weight.grad[:, 56:]
        assert from_graph.abs().max() > 0


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_backbone_can_be_taken_out_again(scale: int) -> None:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=scale, channels=56, blocks=2, graph_after=1))
    lr = 255 * torch.rand(1, 3, 20, 23)
    with torch.no_grad():
        expected = net.forward_backbone(lr)
        pass_backbone_through(net, lr)
        take_backbone_out(net)
        torch.testing.assert_close(net.forward_backbone(lr), expected, atol=1e-3, rtol=0)


def test_another_fusion_is_left_alone() -> None:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=2, channels=56, blocks=2, graph_after=1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    take_backbone_out(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("scale", [2, 3])
def test_the_backbone_of_a_bundled_network(scale: int) -> None:
    net = load_checkpoint(WEIGHTS / f"ignn-s-x{scale}.pt")
    torch.manual_seed(0)
    lr = 255 * torch.rand(1, 3, 4, 4).repeat_interleave(10, 2).repeat_interleave(10, 3)
    with torch.no_grad():
        whole = net(lr)
        stale = (net.forward_backbone(lr) - whole).abs().mean()
        take_backbone_out(net)
        taken = (net.forward_backbone(lr) - whole).abs().mean()
        assert taken < stale / 5

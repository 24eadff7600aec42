"""The optimisers by themselves."""

import torch

from train.config import IGNNConfig
from train.fit_config import FitConfig
from train.model import IGNN
from train.optimizer import Optimizer


def test_a_fusion_learns_of_the_graph_as_fast_as_of_the_backbone():
    """However small the graph's gradient is: Muon sees the two halves of the weight as two matrices."""
    torch.manual_seed(0)
    net = IGNN(IGNNConfig.preset("ignn-s", channels=8, blocks=2, graph_after=1))
    net.to(memory_format=torch.channels_last)
    optimizer = Optimizer(net, FitConfig(data="photographs", muon=0.01))
    weight = net.fuse_up[0][0].weight
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    weight.grad[:, 8:] *= 1e-4
    optimizer.step(1.0)
    change = (weight.detach() - before).square().sum((0, 2, 3)).sqrt()
    assert change[:8].norm() > 0
    torch.testing.assert_close(change[8:].norm(), change[:8].norm(), rtol=0.1, atol=0)
    assert weight.grad is None

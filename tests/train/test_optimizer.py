"""The optimisers by themselves."""

import pytest
import torch

from train.config import IGNNConfig
from train.fit_config import FitConfig
from train.model import IGNN
from train.optimizer import Muon, Optimizer, orthogonal


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


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_is_the_librarys():
    """Which computes in bfloat16: hence the tolerance."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 72), (8, 72), (32, 8)]
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, library = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizers = Muon(ours, 0.1), torch.optim.Muon(library, 0.1, weight_decay=0.0)
    for _ in range(3):
        for mine, other, shape in zip(ours, library, shapes, strict=True):
            mine.grad = torch.randn(shape, generator=generator)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, start in zip(ours, library, starts, strict=True):
        moved = (other - start).norm()
        assert moved > 0.1
        assert (mine - other).norm() < 0.03 * moved


def test_muon_steps_have_singular_values_of_about_one():
    for shape in ((2, 8, 72), (2, 72, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert values.min() > 0.6
        assert values.max() < 1.3

"""The graph of errors against its definition: neighbors lend what the backbone got wrong one scale below."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from runtime.errors import UsageError
from train import IGNN, IGNNConfig
from train.error_graph import believed
from train.neighbors import fold_neighbors
from train.ops import windowed_knn
from train.resize import downsample_bicubic


def network(scale: int = 2, *, trained: bool = True) -> IGNN:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=scale, channels=8, blocks=2, graph_after=1, graph="errors", window=6)).eval()
    if trained:
        for parameter in net.errors.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return net


@pytest.mark.parametrize(("scale", "height", "width"), [(2, 24, 28), (2, 23, 25), (3, 30, 36), (3, 32, 34)])
@torch.no_grad()
def test_output_is_the_backbones_and_the_neighbors_errors(scale: int, height: int, width: int) -> None:
    net = network(scale)
    lr = 255 * torch.rand(2, 3, height, width)
    below = net.reduce(lr)
    h, w = (scale * size for size in below.shape[-2:])
    errors = F.pad(lr[..., :h, :w] - net.forward_backbone(below), (0, width - w, 0, height - h))
    features, features_below = (net.body1(net.head(image - net.mean)) for image in (lr, below))
    index, edge = windowed_knn(features, features_below, 5, 6, scale)
    folded = [fold_neighbors(errors, index[..., r], scale) for r in range(5)]
    weights = net.errors.neighbor_weights(folded, features, edge)
    weights = weights.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    lent = sum(weights[:, r : r + 1] * folded[r] for r in range(5))
    expected = net.forward_backbone(lr) + lent
    assert (expected - net.forward_backbone(lr)).abs().max() > 0.1
    lacking = lr - downsample_bicubic(expected.clamp(0, 255), scale).clamp(0, 255)
    expected = expected + lacking.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    # AdaPN's deviation is not quite out of the way: it changes an error by half its variance in a million.
    assert (net(lr) - expected).abs().max() < 0.01 * lent.abs().max()


@pytest.mark.parametrize("scale", [2, 3])
def test_back_projection_brings_the_reduction_to_the_input(scale: int) -> None:
    """Of a smooth picture, whose reduction no pixel of the enlarged one contradicts."""
    net = network(scale)
    lr = F.interpolate(255 * torch.rand(1, 3, 4, 5), size=(21, 26), mode="bicubic").clamp(0, 255)
    sr = F.interpolate(lr, scale_factor=scale, mode="bicubic") + 8
    before, after = ((lr - net.reduce(picture)).abs().mean() for picture in (sr, net.project_back(sr, lr)))
    assert after < before / 5


def test_back_projection_takes_a_cut_highlight_for_no_error() -> None:
    net = network()
    white = torch.full((1, 3, 12, 12), 255.0)
    assert (net.project_back(torch.full((1, 3, 24, 24), 280.0), white) == 280).all()


def test_untrained_all_neighbors_weigh_alike_and_a_little() -> None:
    net = network(trained=False)
    lr = 255 * torch.rand(1, 3, 20, 20)
    _, _, features, _, edge = net.find_errors(lr)
    lent = [torch.randn(1, 3, 40, 40) for _ in range(5)]
    weights = net.errors.neighbor_weights(lent, features, edge)
    torch.testing.assert_close(weights, believed(torch.full((1, 5, 20, 20), 0.3 / 5)))
    assert 0.25 < weights.sum(1).mean() < 0.35


def test_little_trust_counts_as_none() -> None:
    trust = torch.tensor([0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.8]).view(-1, 1, 1, 1)
    acting = believed(trust / 5 * torch.ones(1, 5, 1, 1)).sum(1).flatten()
    assert (acting[:3] == 0).all()
    assert (acting.diff()[2:] > 0).all()
    torch.testing.assert_close(acting[-2:], torch.tensor([0.6, 1.2]))


def test_doubt_reads_whether_the_errors_agree() -> None:
    net = network(trained=False)
    with torch.no_grad():
        net.errors.doubt.weight[:, 0] = -1  # less doubt the more they agree
    _, _, features, _, edge = net.find_errors(255 * torch.rand(1, 3, 20, 20))
    one, *others = torch.randn(5, 1, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 10
    alike = net.errors.neighbor_weights([one] * 5, features, edge).sum(1)
    unlike = net.errors.neighbor_weights([one, *others], features, edge).sum(1)
    assert (alike > unlike).all()


def test_edge_labels_choose_among_neighbors_alone() -> None:
    net = network(trained=False)
    _, _, features, _, edge = net.find_errors(255 * torch.rand(1, 3, 20, 20))
    lent = [torch.randn(1, 3, 40, 40) for _ in range(5)]
    before = net.errors.neighbor_weights(lent, features, edge)
    last = net.errors.weightnet.get_submodule("2.0")
    with torch.no_grad():
        last.bias.fill_(-5.0)  # the same for every neighbor
        torch.testing.assert_close(net.errors.neighbor_weights(lent, features, edge), before)
        last.weight.normal_()
        assert (net.errors.neighbor_weights(lent, features, edge) - before).abs().max() > 0.01


def test_everything_but_the_search_has_a_gradient() -> None:
    net = network()
    net(255 * torch.rand(1, 3, 20, 22)).square().mean().backward()
    without = {name for name, p in net.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert all(p.grad is None for p in net.embedding.parameters())


def test_x4_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Invalid scale \(4\)"):
        IGNNConfig(scale=4, graph="errors")


@pytest.mark.parametrize("graph", ["errors", "non-local", "none"])
@pytest.mark.parametrize("part", ["adapn", "ecn"])
def test_parts_of_another_graph_are_refused(graph: str, part: str) -> None:
    with pytest.raises(UsageError, match=rf"Invalid {part} \(False\) with graph = '{graph}'"):
        IGNNConfig(graph=graph, **{part: False})

"""The graph of errors against its definition: neighbors lend what the backbone got wrong one scale below."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from runtime.errors import UsageError
from train import IGNN, IGNNConfig
from train.error_graph import believed, dense_knn, key_corner
from train.ops import windowed_knn


def network(scale: int = 2, *, trained: bool = True) -> IGNN:
    torch.manual_seed(0)
    net = IGNN(IGNNConfig(scale=scale, channels=8, blocks=2, graph_after=1, graph="errors", window=6)).eval()
    if trained:
        for parameter in net.errors.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return net


def patches(image: torch.Tensor, side: int) -> torch.Tensor:
    """Return the patches at every pixel of (C, H, W), zeros beyond, as (H, W, C, side, side)."""
    return F.pad(image, (0, side - 1, 0, side - 1)).unfold(1, side, 1).unfold(2, side, 1).permute(1, 2, 0, 3, 4)


@pytest.mark.parametrize(("scale", "height", "width"), [(2, 24, 28), (2, 23, 25), (3, 30, 36), (3, 32, 35)])
@torch.no_grad()
def test_output_is_the_backbones_and_the_neighbors_errors(scale: int, height: int, width: int) -> None:
    net = network(scale)
    lr = 255 * torch.rand(2, 3, height, width)
    below = net.reduce(lr)
    h, w = (scale * size for size in below.shape[-2:])
    errors = F.pad(lr[..., :h, :w] - net.forward_backbone(below), (0, width - w, 0, height - h))
    features, features_below = (net.body1(net.head(image - net.mean)) for image in (lr, below))
    index, edge = dense_knn(features, features_below, 5, 6, scale)
    side, (m1, m2) = 3 * scale, index.shape[1:3]
    folded = []
    for r in range(5):
        lent, count = torch.zeros(2, 3, scale * height, scale * width), torch.zeros(scale * height, scale * width)
        for n, i, j in product(range(2), range(m1), range(m2)):
            row, column = key_corner(int(index[n, i, j, r]), *below.shape[-2:])
            here = (slice(2 * scale * i, 2 * scale * i + side), slice(2 * scale * j, 2 * scale * j + side))
            covered = lent[n, :, *here]
            covered += patches(errors[n], side)[scale * row, scale * column][:, : covered.shape[1], : covered.shape[2]]
            count[here] += n == 0
        lent /= count
        lent[..., 2 * scale * m1 :, :] = lent[..., 2 * scale * m2 :] = 0
        folded.append(lent)
    weights = net.errors.neighbor_weights(folded, features, edge)
    weights = weights.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    lent = sum(weights[:, r : r + 1] * folded[r] for r in range(5))
    expected = net.forward_backbone(lr) + lent
    assert lent.abs().max() > 0.1
    # AdaPN's deviation is not quite out of the way: it changes an error by half its variance in a million.
    assert (net(lr) - expected).abs().max() < 0.01 * lent.abs().max()


@pytest.mark.parametrize(("scale", "height", "width", "window"), [(2, 24, 28, 6), (3, 32, 35, 6), (2, 20, 22, 60)])
def test_key_patches_lie_at_every_pixel(scale: int, height: int, width: int, window: int) -> None:
    torch.manual_seed(3)
    query = torch.randn(1, 4, height, width)
    key = torch.randn(1, 4, height // scale, width // scale)
    index, edge = dense_knn(query, key, 3, window, scale)
    every_other, _ = windowed_knn(query, key, 3, window, scale)
    continued = F.pad(key, (0, 1, 0, 1), mode="replicate")[0]
    n1, n2 = (size // 2 for size in key.shape[-2:])
    moved = 0
    for i, j in product(range(2, height // 2 - 1), range(2, width // 2 - 1)):
        query_patch = query[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        corners = [key_corner(number, *key.shape[-2:]) for number in index[0, i, j].tolist()]
        for r, (row, column) in enumerate(corners):
            if row + 3 <= continued.shape[1] and column + 3 <= continued.shape[2] and row < 2 * n1 - 2:
                key_patch = continued[:, row : row + 3, column : column + 3]
                if key_patch.shape == query_patch.shape and column < 2 * n2 - 2:
                    label = (query_patch - key_patch).abs().sum((1, 2))
                    torch.testing.assert_close(edge[0, r, :, i, j], label)
        sums = edge[0, :, :, i, j].sum(1)
        assert (sums.diff() >= 0).all()
        moved += any(row % 2 or column % 2 for row, column in corners)
    assert moved > 0
    assert index.dtype == every_other.dtype
    assert index.shape == every_other.shape


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

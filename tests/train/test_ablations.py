"""The paper's comparisons: what each switch of the configuration means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.config import IGNNConfig
from train.graph_agg import GraphAgg
from train.model import IGNN
from train.neighbors import fold_neighbors
from train.non_local import NonLocal

VARIANTS = [
    {},
    {"graph": "same-scale"},
    {"graph": "non-local"},
    {"graph": "none"},
    {"adapn": False},
    {"ecn": False},
    {"adapn": False, "ecn": False},
    {"graph_after": 0},
    {"window": 1_000_000},
    {"neighbors": 1},
    {"neighbors": 11},
]


def tiny(**overrides):
    torch.manual_seed(0)
    return IGNN(IGNNConfig(**{"channels": 8, "blocks": 2, "graph_after": 1, **overrides}))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("overrides", VARIANTS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()) or "ignn")
def test_every_variant_upscales_and_learns(overrides, scale):
    net = tiny(scale=scale, **overrides)
    sr = net(torch.rand(1, 3, 25, 26) * 255)
    assert sr.shape == (1, 3, 25 * scale, 26 * scale)
    sr.mean().backward()
    silent = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


def test_plain_edsr_is_the_backbone_stage():
    net, lr = tiny(graph="none"), torch.rand(1, 3, 25, 26) * 255
    torch.testing.assert_close(net(lr), net.forward_backbone(lr))


def test_non_local_block_starts_as_the_identity_and_sees_every_pixel():
    block, x = NonLocal(8), torch.rand(1, 8, 9, 7, requires_grad=True)
    torch.testing.assert_close(block(x), x)
    torch.nn.init.normal_(block.out.weight)
    block(x)[0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(1) > 0).all()


def fold_by_loops(features, index, scale):
    """Paste patch after patch, count, divide."""
    N, C, H, W = features.shape
    keys = W // scale // 2
    padded = torch.nn.functional.pad(features[..., : H // scale * scale, : W // scale * scale], (0, scale) * 2)
    total = features.new_zeros(N, C, scale * (H + 2), scale * (W + 2))
    count = torch.zeros_like(total)
    for n in range(N):
        for i in range(H // 2):
            for j in range(W // 2):
                u, v = divmod(int(index[n, i, j]), keys)
                patch = padded[n, :, 2 * scale * u :, 2 * scale * v :][:, : 3 * scale, : 3 * scale]
                total[n, :, 2 * scale * i :, 2 * scale * j :][:, : 3 * scale, : 3 * scale] += patch
                count[n, :, 2 * scale * i :, 2 * scale * j :][:, : 3 * scale, : 3 * scale] += 1
    return (total / count)[..., : scale * H, : scale * W]


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 15), st.integers(4, 15), st.sampled_from([1, 2, 3]), st.integers(0, 2**31))
def test_plain_folding_against_loops(height, width, scale, seed):
    height, width = max(height, 2 * scale), max(width, 2 * scale)
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    keys = (height // scale // 2) * (width // scale // 2)
    index = torch.randint(keys, (2, height // 2, width // 2), generator=generator, dtype=torch.int32)
    torch.testing.assert_close(fold_neighbors(features, index, scale), fold_by_loops(features, index, scale))


def test_without_ecn_neighbors_weigh_alike():
    torch.manual_seed(0)
    gcn = GraphAgg(4, 2, adapn=False, ecn=False)
    features = torch.rand(1, 4, 12, 12)
    index = torch.randint(9, (1, 6, 6, 3), dtype=torch.int32)
    _, f_hr = gcn(features, index, torch.rand(1, 3, 64, 6, 6))
    mean = sum(fold_neighbors(features, index[..., r], 2) for r in range(3)) / 3
    torch.testing.assert_close(f_hr, mean)


def test_autocast_leaves_the_graph_in_full_precision():
    net = tiny()
    lr = torch.rand(1, 3, 40, 42) * 255
    index, edge = net.find_neighbors(lr, net.reduce(lr))
    with torch.autocast("cpu", torch.bfloat16):
        cast_index, cast_edge = net.find_neighbors(lr, net.reduce(lr))
        sr = net(lr)
    assert cast_edge.dtype == torch.float32
    assert torch.equal(index, cast_index)
    assert torch.equal(edge, cast_edge)
    assert (sr - net(lr)).abs().max() < 8


def test_unknown_graph_is_named():
    with pytest.raises(ValueError, match="Supported values are graphagg"):
        IGNNConfig(graph="random")

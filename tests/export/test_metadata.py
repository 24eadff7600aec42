"""The halo that the runtime trusts, checked by experiment; the rest of the metadata."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from export.metadata import halo, metadata
from runtime.metadata import read_metadata
from train import IGNN, IGNNConfig


def small(scale: int, **overrides: str) -> IGNN:
    torch.manual_seed(scale)
    config = IGNNConfig(scale=scale, channels=4, blocks=2, graph_after=1, residual_scale=1.0, neighbors=3, window=6)
    net = IGNN(replace(config, **overrides)).eval()
    if net.config.graph == "errors":  # whose weights begin all alike
        for parameter in net.errors.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return net


@pytest.mark.parametrize(
    ("scale", "graph"),
    [(scale, graph) for scale in (2, 3, 4) for graph in ("graphagg", "none")] + [(2, "errors"), (3, "errors")],
)
def test_a_tile_with_this_halo_is_exact_and_with_little_less_is_not(scale: int, graph: str) -> None:
    net = small(scale, graph=graph).double()  # so that rounding cannot hide or feign a difference
    step = 2 * net.config.graph_scale
    context = halo(net.config)
    assert context % step == 0
    tile = 4 * step
    side = 2 * (context + step) + tile
    lr = torch.rand(1, 3, side, side + step, generator=torch.Generator().manual_seed(0)).double() * 255
    start = context + step

    def difference(context: int) -> float:
        a, b = start - context, start + tile + context
        with torch.no_grad():
            part = net(lr[..., a:b, a:b])
        inside = slice(scale * context, scale * (context + tile))
        whole_inside = slice(scale * start, scale * (start + tile))
        return float((part[..., inside, inside] - whole[..., whole_inside, whole_inside]).abs().max())

    with torch.no_grad():
        whole = net(lr)
    assert difference(context) < 1e-10
    less = {"none": step, "graphagg": 2 * step, "errors": 3 * step}[graph]
    assert difference(context - less) > 1e-5, "less is enough: the halo is too large"


def test_halo_grows_with_the_window_and_the_depth() -> None:
    base = IGNNConfig.preset("ignn-s")
    assert halo(replace(base, window=40)) - halo(base) == 20
    assert halo(replace(base, blocks=20)) - halo(base) == 8
    # Measured on the released code: 4 blocks, exact from 80 on.
    assert 80 <= halo(IGNNConfig(blocks=4, graph_after=2)) <= 92


def test_metadata_is_complete_and_made_of_strings() -> None:
    net = small(4)
    props = metadata(net, "fp32", 15000)
    assert all(isinstance(value, str) for value in props.values())
    assert json.loads(props["ignn.config"]) == net.config.to_dict()
    assert (props["ignn.scale"], props["ignn.graph_scale"], props["ignn.tile_multiple"]) == ("4", "2", "4")
    assert props["ignn.name"] == "custom x4"
    assert props["ignn.window"] == "6"
    assert len(props["ignn.weights_sha256"]) == 64
    with torch.no_grad():
        net.head[0].bias[0] += 1
    assert metadata(net, "fp32", 15000)["ignn.weights_sha256"] != props["ignn.weights_sha256"]


def test_a_network_without_a_graph_has_no_window_and_a_name_of_its_own() -> None:
    net = IGNN(IGNNConfig.preset("ignn-s", scale=3, graph="none"))
    props = metadata(net, "fp32", 15000)
    assert (props["ignn.window"], props["ignn.k"], props["ignn.name"]) == ("0", "0", "edsr-s x3")
    assert read_metadata(props, source="m.onnx").window == 0

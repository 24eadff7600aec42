"""Exact tiles with the network itself: its graph, its window, its patch grids, at all scales (weights are random)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.metadata import ModelMetadata
from runtime.tiles.composer import Composer
from runtime.tiles.plan import plan_tiles
from train.config import IGNNConfig
from train.model import IGNN

WINDOW = 4
NETWORKS = [(2, "graphagg"), (3, "graphagg"), (4, "graphagg"), (2, "errors"), (3, "errors")]
HALO = {"graphagg": 44, "errors": 60}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # small maps: more threads only wait for each other
    nets = {}
    for scale, graph in NETWORKS:
        net = IGNN(IGNNConfig(scale=scale, channels=8, blocks=2, graph_after=1, window=WINDOW, graph=graph)).eval()
        if graph == "errors":  # whose weights begin all alike
            for parameter in net.errors.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        nets[scale, graph] = net
    return nets


def picture(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    if kind == "flat":
        values[:] = 100
    if kind == "repeating":
        values = np.tile(values[:8, :8], (height // 8 + 1, width // 8 + 1, 1))[:height, :width]
    return values


def run(network: IGNN, lr: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return (
            network(torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1)[None])))[0].numpy().transpose(1, 2, 0)
        )


@settings(max_examples=4, deadline=None)
@given(
    height=st.integers(1, 110),
    width=st.integers(1, 140),
    tile=st.integers(24, 64),
    kind=st.sampled_from(["noise", "flat", "repeating"]),
    seed=st.integers(0, 9),
)
@example(height=7, width=200, tile=40, kind="noise", seed=0)  # key grid thinner than the window
@example(height=101, width=95, tile=24, kind="repeating", seed=0)
@example(height=20, width=25, tile=8, kind="noise", seed=0)  # key grid smaller than the window
@pytest.mark.parametrize(("scale", "graph"), NETWORKS)
def test_tiled_result_is_the_whole_one(networks, scale, graph, height, width, tile, kind, seed):
    network = networks[scale, graph]
    graph_scale = network.config.graph_scale
    facts = ModelMetadata("test", scale, "0..255", HALO[graph], 2 * graph_scale, WINDOW, True, "fp32", 1)
    lr = picture(kind, height, width, seed)
    plan = plan_tiles(height, width, facts, tile=tile)
    composer = Composer(plan, scale, lambda values: values)
    bands = []
    for t in plan:
        crop = lr[t.row.crop_start : t.row.crop_stop, t.column.crop_start : t.column.crop_stop]
        bands += [band for _, band in composer.add(t, run(network, crop))]
    difference = np.abs(np.concatenate(bands) - run(network, lr))
    assert difference.max() < 1  # a near-tie between neighbors may fall otherwise
    assert (difference > 0.01).mean() < 1e-3

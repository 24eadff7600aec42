"""The network against the slow reference and against the released code's recorded numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slow_reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train import IGNN, IGNNConfig, load_checkpoint

SHARED = pytest.mark.shared
GOLDEN = [
    "x2_60x60",
    *(pytest.param(name, marks=SHARED) for name in ("x2_76x180", "x2_128x140", "x3_60x66", "x4_72x64")),
]


def small(scale: int, **overrides: int) -> IGNN:
    torch.manual_seed(0)
    return IGNN(IGNNConfig(scale=scale, channels=8, blocks=4, graph_after=2, **overrides)).eval()


def released(golden_file: Callable[[str], Path], name: str, folder: Path) -> tuple[IGNN, dict[str, np.ndarray]]:
    """Load a golden file through a checkpoint in the released format."""
    golden = dict(np.load(golden_file(name)))
    weights = {"module." + key[2:]: torch.from_numpy(v) for key, v in golden.items() if key.startswith("w/")}
    torch.save({"net_state_dict": weights}, folder / "released.pth")
    return load_checkpoint(folder / "released.pth"), golden


@pytest.mark.parametrize("name", GOLDEN)
@torch.no_grad()
def test_golden(golden_file: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    net, golden = released(golden_file, name, tmp_path)
    assert net.config.scale == golden["scale"]
    assert net.config.window == golden["window"]
    lr, lr_down = torch.from_numpy(golden["lr"]), torch.from_numpy(golden["lr_down"])
    assert (net.reduce(lr) - lr_down).abs().max() < 1e-3
    assert (net(lr) - torch.from_numpy(golden["sr"])).abs().max() < 2e-3
    assert (net(lr, lr_down) - torch.from_numpy(golden["sr"])).abs().max() < 2e-3
    index, edge = net.find_neighbors(lr, lr_down)
    np.testing.assert_array_equal(index.flatten(1, 2).numpy(), golden["knn_index"])
    if "graph_in" in golden:
        features = net.body1(net.head(lr - net.mean))
        for value, key in zip(
            (features, *net.gcn(features, index, edge)), ("graph_in", "graph_lr", "graph_hr"), strict=True
        ):
            assert (value - torch.from_numpy(golden[key])).abs().max() < 1e-3, key


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("x2_60x60", 59, 43),
        pytest.param("x3_60x66", 47, 65, marks=SHARED),
        pytest.param("x4_72x64", 41, 58, marks=SHARED),
    ],
)
@torch.no_grad()
def test_golden_weights_on_odd_sizes(
    golden_file: Callable[[str], Path], tmp_path: Path, name: str, height: int, width: int
) -> None:
    net, golden = released(golden_file, name, tmp_path)
    lr = torch.from_numpy(golden["lr"])[..., :height, :width]
    assert (net(lr) - slow_reference.forward(net, lr)).abs().max() < 2e-3


@settings(deadline=None, max_examples=10)
@given(
    st.sampled_from([2, 3, 4]),
    st.integers(18, 33),
    st.integers(18, 33),
    st.sampled_from([3, 5, 30]),
    st.integers(0, 99),
)
@torch.no_grad()
def test_network_equals_slow_reference(scale: int, height: int, width: int, window: int, seed: int) -> None:
    net = small(scale, window=window)
    lr = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    assert (net(lr) - slow_reference.forward(net, lr)).abs().max() < 2e-3


@settings(deadline=None, max_examples=15)
@given(st.sampled_from([2, 3, 4]), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3))
@torch.no_grad()
def test_any_size_from_one_pixel(scale: int, height: int, width: int, batch: int) -> None:
    net = small(scale)
    sr = net(255 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)))
    assert sr.shape == (batch, 3, scale * height, scale * width)
    assert sr.isfinite().all()


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(scale: int) -> None:
    # Not on images that are padded: their repeated pixels make neighbors that tie exactly, and either may be chosen.
    net = small(scale)
    lr = 255 * torch.rand(3, 3, 25, 22, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cat([net(image[None]) for image in lr]), net(lr), atol=1e-3, rtol=0)


def test_gradients_reach_everything_but_the_embedding() -> None:
    net = small(2).train()
    net(255 * torch.rand(1, 3, 16, 18)).square().mean().backward()
    without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {name for name, _ in net.named_parameters() if name.startswith("embedding.")}
    assert not any(p.requires_grad for p in net.embedding.parameters())


def test_backbone_is_the_network_without_the_graph() -> None:
    net = small(4)
    assert net.forward_backbone(255 * torch.rand(2, 3, 9, 7)).shape == (2, 3, 36, 28)


def test_configurations() -> None:
    assert IGNNConfig.preset("ignn", scale=2) == IGNNConfig(scale=2, channels=256, blocks=32, graph_after=16)
    assert IGNNConfig.preset("ignn-s").residual_scale == 1.0
    with pytest.raises(ValueError, match=r"Unknown preset \('ignn-x'\)\. Supported values are ignn, ignn-s"):
        IGNNConfig.preset("ignn-x")
    with pytest.raises(ValueError, match=r"Unknown configuration field \(widht\)"):
        IGNNConfig.preset("ignn", widht=3)
    with pytest.raises(ValueError, match=r"Invalid scale \(5\)\. Supported values are 2, 3, 4"):
        IGNNConfig(scale=5)
    with pytest.raises(ValueError, match="holds fewer than neighbors"):
        IGNNConfig(window=2)
    assert [IGNNConfig(scale=s).minimum_size for s in (2, 3, 4)] == [12, 18, 12]

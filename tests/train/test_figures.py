"""Pictures of the graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.cli import run_command
from train.checkpoint import save_checkpoint
from train.config import IGNNConfig
from train.embedding import VGGEmbedding
from train.figures import feature_maps, feature_maps_main, graphagg_star, graphagg_star_main
from train.model import IGNN


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    torch.manual_seed(0)
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)), folder / "tiny.pt")
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1, graph="none")), folder / "edsr.pt")
    Image.effect_noise((30, 24), 60).convert("RGB").save(folder / "lr.png")
    return folder


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 14), (31, 26)])
def test_graphagg_star_has_every_size(height, width, scale):
    lr = torch.rand(1, 3, height, width) * 255
    sr = graphagg_star(lr, VGGEmbedding(), scale=scale, neighbors=3, window=10)
    assert sr.shape == (1, 3, scale * height, scale * width)
    # Every pixel is a mean of the image's own; zeros come in where the key grid is padded.
    assert sr.min() >= 0
    assert sr.max() <= lr.max() + 1e-3


def test_graphagg_star_finds_a_larger_copy():
    """An image whose left half is its right half at twice the size: patches come from there, sharp."""
    torch.manual_seed(0)
    small = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8) * 255, scale_factor=4, mode="bicubic").clamp(0, 255)
    large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 255)
    lr = torch.cat([large, torch.nn.functional.pad(small, (0, 0, 0, 32), mode="replicate")], dim=3)
    sr = graphagg_star(lr, VGGEmbedding(), scale=2, neighbors=1, window=1000)
    copy = sr[..., 8:56, 136:184]  # the small half, upscaled, away from its border
    assert (copy - large[..., 8:56, 8:56]).abs().mean() < 12
    assert (copy - large[..., 8:56, 8:56].flip(3)).abs().mean() > 20


def test_feature_maps_are_those_of_the_forward_pass(files):
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)).eval()
    maps = feature_maps(net, torch.rand(1, 3, 24, 30) * 255)
    shapes = {name: tuple(features.shape) for name, features in maps.items()}
    assert shapes["before GraphAgg"] == shapes["aggregated at LR"] == (8, 24, 30)
    assert shapes["aggregated at HR"] == shapes["fused"] == (8, 48, 60)
    assert not any(module._forward_hooks for module in net.modules())


def test_commands_write_pictures(files, tmp_path, capsys):
    common = [str(files / "lr.png"), "--model", str(files / "tiny.pt"), "-o"]
    assert graphagg_star_main([*common, str(tmp_path / "star.png")]) == 0
    with Image.open(tmp_path / "star.png") as sheet:
        assert sheet.size == (2 * 60 + 4, 48 + 16)
        bicubic, star = (np.asarray(sheet)[16:, left : left + 60] for left in (0, 64))
    assert np.abs(bicubic.astype(int) - star).mean() > 1
    assert feature_maps_main([*common, str(tmp_path / "maps.png")]) == 0
    with Image.open(tmp_path / "maps.png") as sheet:
        assert sheet.size == (3 * 64 - 4, 2 * (48 + 16))
    assert str(tmp_path / "maps.png") in capsys.readouterr().out


def test_errors_are_one_line(files, tmp_path, capsys):
    image, good = str(files / "lr.png"), str(files / "tiny.pt")
    for arguments, message in (
        ([image, "--model", good, "-o", str(tmp_path / "x.abc")], "Give a file name that ends in"),
        ([image, "--model", str(files / "edsr.pt"), "-o", str(tmp_path / "x.png")], "has no GraphAgg"),
        ([str(files / "none.png"), "--model", good, "-o", str(tmp_path / "x.png")], "none.png"),
    ):
        assert run_command("ignn feature-maps", lambda arguments=arguments: feature_maps_main(arguments)) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())

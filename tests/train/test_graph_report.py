"""The report on a network's graph: norms, entropies and GraphAgg* are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import UsageError
from train.checkpoint import save_checkpoint
from train.config import IGNNConfig
from train.graph_report import fusion_norms, main, weight_entropy
from train.lending import lent_errors, tiles_that_neighbors_win
from train.model import IGNN


def network(**overrides):
    torch.manual_seed(0)
    return IGNN(IGNNConfig(**{"channels": 8, "blocks": 2, "graph_after": 1, **overrides})).eval()


@pytest.fixture
def files(tmp_path):
    save_checkpoint(network(), tmp_path / "tiny.pt")
    save_checkpoint(network(graph="none"), tmp_path / "edsr.pt")
    save_checkpoint(network(scale=4), tmp_path / "x4.pt")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.effect_noise((60, 48), 60).convert("RGB").save(tmp_path / "photos" / name)
    return tmp_path


def test_norms_are_of_the_two_halves():
    net = network()
    with torch.no_grad():
        weight = net.fuse_b.get_submodule("0.0").weight
        weight.zero_()
        weight[:, :8] = 1
        weight[:, 8:] = 0.5
    backbone, graph = fusion_norms(net)["fuse_b"]
    assert backbone == pytest.approx((8 * 8 * 9) ** 0.5)
    assert graph == pytest.approx(backbone / 2)


def test_entropy_is_one_for_equal_weights_and_nothing_for_one_neighbor(monkeypatch):
    net, lr = network(), torch.rand(1, 3, 30, 32) * 255
    for network_of_weights in (net.gcn.weightnet_lr, net.gcn.weightnet_hr):
        torch.nn.init.zeros_(network_of_weights.get_submodule("2.0").weight)
    assert weight_entropy(net, lr) == (pytest.approx(1), pytest.approx(1))
    one = torch.zeros(1, 5, 30, 32)
    one[:, 2] = 1
    monkeypatch.setattr(net.gcn, "neighbor_weights", lambda *_: (one, one))
    assert weight_entropy(net, lr) == (pytest.approx(0), pytest.approx(0))


def test_command(files, capsys):
    assert main([str(files / "tiny.pt")]) == 0
    assert capsys.readouterr().out.count("| `fuse_") == 2
    assert main([str(files / "tiny.pt"), "--data", str(files / "photos"), "--window", "6", "--window", "0"]) == 0
    out = capsys.readouterr().out
    assert "mean of 2 images" in out
    rows = dict(line.strip("| ").split(" | ", 1) for line in out.splitlines() if "| " in line)
    assert {"bicubic", "GraphAgg*, window 6", "GraphAgg*, window the whole image"} < set(rows)
    assert rows["bicubic"].endswith("0 of 2")
    bicubic, star = (float(rows[name].split(" ")[0]) for name in ("bicubic", "GraphAgg*, window 6"))
    assert np.isfinite([bicubic, star]).all()
    assert star < bicubic  # noise does not recur


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        ("edsr.pt", [], "must have graph = 'graphagg'"),
        ("x4.pt", ["--window", "30", "--data", "photos"], "scale 2 or 3"),
        ("tiny.pt", ["--window", "30"], "needs --data"),
        ("tiny.pt", ["--data", "photos", "--limit", "0"], "a limit at least 1"),
        ("tiny.pt", ["--data", "nowhere"], "does not exist"),
    ],
)
def test_errors_name_what_is_accepted(files, model, more, message, monkeypatch):
    monkeypatch.chdir(files)
    with pytest.raises(UsageError, match=message):
        main([model, *more])


def errors_network(trust: float) -> IGNN:
    net = network(graph="errors")
    torch.nn.init.constant_(net.errors.doubt.bias, trust)
    return net


def test_what_neighbors_win_by_chance_is_less():
    """A picture that holds itself at half the size: what is found for that part is the truth."""
    lr = torch.rand(1, 3, 32, 32) * 255
    lr[..., 16:, 16:] = torch.nn.functional.avg_pool2d(lr, 2)
    hr = torch.nn.functional.interpolate(lr, scale_factor=2)
    hr[..., 32:, 32:] = lr
    net = network()
    found, drawn = tiles_that_neighbors_win(net, lr, hr)
    assert 0 <= drawn[1] <= 1
    assert found[0] > drawn[0]
    assert found[2] >= 0
    assert tiles_that_neighbors_win(net, lr, hr)[1] == drawn


def test_errors_that_nobody_trusts_leave_back_projection_alone():
    lr = torch.rand(1, 3, 24, 24) * 255
    hr = (torch.rand(48, 48, 3) * 255).byte().numpy()
    _, backbone, equal, projected, doubted, trust = lent_errors(errors_network(50.0), lr, hr)
    assert len({backbone, equal, projected}) == 3
    assert doubted == projected
    assert trust == pytest.approx(0, abs=1e-12)
    correlation, _, _, _, trusted, trust = lent_errors(errors_network(-50.0), lr, hr)
    assert trusted != projected
    assert trust == pytest.approx(1.5)
    assert -1 <= correlation <= 1


def test_command_on_a_network_of_errors(files, capsys):
    save_checkpoint(errors_network(0.0), files / "errors.pt")
    assert main([str(files / "errors.pt"), "--data", str(files / "photos")]) == 0
    out = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in out.splitlines()[2:]] == ["| a", "| b", "| mean of 2"]
    with pytest.raises(UsageError, match="give --data FOLDER, and no --window"):
        main([str(files / "errors.pt")])

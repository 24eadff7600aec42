"""The sheet of one place's neighbors: what it shows is what the network uses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.errors import IgnnError, UsageError
from train.checkpoint import save_checkpoint
from train.config import IGNNConfig
from train.model import IGNN
from train.neighbor_sheet import draw, find, main


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbors")
    torch.manual_seed(0)
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)), folder / "tiny.pt")
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1, graph="none")), folder / "edsr.pt")
    Image.effect_noise((60, 48), 60).convert("RGB").save(folder / "photo.png")
    return folder


def photograph(side=96):
    """Smooth noise at the left; the same reduced by 2 at the right, so that its neighbors lie at the left."""
    smooth = torch.nn.functional.interpolate(
        torch.rand(1, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0)) * 255,
        size=(side, side), mode="bicubic",
    ).clamp(0, 255)  # fmt: skip
    small = torch.nn.functional.interpolate(smooth, scale_factor=0.5, mode="bicubic", antialias=True)
    image = torch.full((3, side, side + side // 2), 120.0)
    image[:, :, :side] = smooth[0]
    image[:, : side // 2, side:] = small[0]
    return image.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def test_a_copy_at_half_the_size_finds_its_original():
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1, window=1000)).eval()
    image = photograph()
    found = find(net, image, x=96 + 21, y=21)  # its original is around (42, 42)
    assert found.query == (20, 116)
    row, column = (2 * place for place in found.keys[0])
    assert abs(row - 40) <= 4
    assert abs(column - 40) <= 4
    assert len(found.keys) == 5


@pytest.mark.parametrize("ecn", [True, False])
def test_weights_are_the_networks(ecn):
    torch.manual_seed(1)
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1, ecn=ecn)).eval()
    image = photograph(48)
    found = find(net, image, x=31, y=17)
    lr = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    index, edge = net.find_neighbors(lr, net.reduce(lr))
    i, j = found.query[0] // 2, found.query[1] // 2
    columns = net.reduce(lr).shape[3] // 2
    assert index[0, i, j].tolist() == [row // 2 * columns + column // 2 for row, column in found.keys]

    # f_hr of constant features, one neighbor's at a time set apart, is that neighbor's weight.
    assert sum(found.weights["LR"]) == pytest.approx(1)
    chosen = index[..., 0]
    net.gcn._fold = lambda features, statistics, neighbor: torch.full((1, 8, 96, 144), float(neighbor is chosen))
    for r, weight in enumerate(found.weights["HR"]):
        chosen = index[..., r]
        split = [index[..., n] if n != r else chosen for n in range(5)]
        picked = type("Index", (), {"__getitem__": lambda self, key, split=split: split[key[1]]})()
        _, f_hr = net.gcn(torch.zeros(1, 8, 48, 72), picked, edge)
        assert f_hr[0, 0, 2 * (2 * i + 1), 2 * (2 * j + 1)].item() == pytest.approx(weight, abs=1e-6)


def test_the_sheet_shows_the_patches_where_they_are(files):
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)).eval()
    image = photograph()
    found = find(net, image, x=70, y=33)
    sheet = np.asarray(draw(image, found, 2))
    details = sheet[-2 * (120 + 16) :]
    row, column = found.query
    np.testing.assert_array_equal(details[16 + 60, 60], image[row + 1, column + 1])  # the query's middle pixel
    row, column = found.keys[2]
    np.testing.assert_array_equal(details[16 + 60, 3 * 124 + 60], found.reduced[row + 1, column + 1])
    np.testing.assert_array_equal(details[136 + 16 + 62, 3 * 124 + 62], image[2 * row + 3, 2 * column + 3])


def test_errors_that_are_lent_and_their_weights_are_the_networks():
    torch.manual_seed(2)
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1, graph="errors", window=8)).eval()
    image = photograph(48)
    found = find(net, image, x=31, y=17)
    lr = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    _, errors, features, index, edge = net.find_errors(lr)
    i, j = found.query[0] // 2, found.query[1] // 2
    assert index[0, i, j].tolist() == [row // 2 * (72 // 2 // 2) + column // 2 for row, column in found.keys]
    weights = net.errors.find(errors, features, index, edge)[1][0, :, 2 * i + 1, 2 * j + 1]
    assert found.weights == {"error": weights.tolist()}
    shown = (128 + 4 * errors[0]).round().clamp(0, 255).permute(1, 2, 0).detach().numpy()
    np.testing.assert_array_equal(found.lent, shown)
    gray = np.asarray(draw(np.zeros_like(image), replace(found, weights={"error": [0.0] * 5}), 2))
    assert (gray[-60, 60] == 128).all()  # nothing is lent


@pytest.mark.parametrize("at", ["0,0", "59,47"])
def test_command(files, tmp_path, capsys, at):
    arguments = [str(files / "photo.png"), "--at", at, "--model", str(files / "tiny.pt"), "-o", str(tmp_path / "s.png")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("6 x 6 at ") == 5
    with Image.open(tmp_path / "s.png") as sheet:
        assert f"{sheet.width} x {sheet.height}" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--at": "60,3"}, r"Invalid --at \(60,3\). Give X,Y: a column from 0 to 59"),
        ({"--at": "middle"}, "e.g. --at 30,24"),
        ({"--model": "edsr.pt"}, "its graph is 'none'"),
        ({"-o": "sheet.abc"}, "ends in .png"),
        ({"image": "tiny.pt"}, "cannot be read as an image"),
    ],
)
def test_errors_name_what_is_accepted(files, tmp_path, change, message):
    given = {"image": "photo.png", "--at": "3,4", "--model": "tiny.pt", "-o": "sheet.png", **change}
    command = [str(files / given.pop("image")), "--at", given["--at"], "--model", str(files / given["--model"])]
    with pytest.raises(IgnnError, match=message):
        main([*command, "-o", str(tmp_path / given["-o"])])
    assert not list(tmp_path.iterdir())
    assert issubclass(UsageError, IgnnError)

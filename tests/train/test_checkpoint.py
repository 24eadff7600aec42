"""Checkpoints of ours, released ones, and files that are neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train import IGNN, IGNNConfig, load_checkpoint, save_checkpoint
from train.checkpoint import read_checkpoint
from train.errors import CheckpointError


def small(scale: int = 2) -> IGNN:
    return IGNN(IGNNConfig(scale=scale, channels=8, blocks=3, graph_after=1))


def as_released(net: IGNN, prefix: str) -> dict[str, torch.Tensor]:
    """Name the parameters as the released code does, with its redundant tensors."""
    weights = {key.replace("embedding.", "vggnet."): value for key, value in net.state_dict().items()}
    for key in [key for key in weights if key.startswith("vggnet.")]:
        weights[key.replace("vggnet.", "graph.embedcnn.")] = weights[key]
    for name in ("sub_mean", "add_mean"):
        weights |= {f"{name}.weight": torch.eye(3).view(3, 3, 1, 1), f"{name}.bias": torch.zeros(3)}
    return {prefix + key: value for key, value in weights.items()}


def test_ours_round_trip(tmp_path: Path) -> None:
    net = small(3)
    save_checkpoint(net, tmp_path / "net.pt")
    loaded = load_checkpoint(tmp_path / "net.pt")
    assert loaded.config == net.config
    assert not loaded.training
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_format(tmp_path: Path, scale: int, prefix: str) -> None:
    net = small(scale)
    torch.save({"net_state_dict": as_released(net, prefix)}, tmp_path / "released.pth")
    loaded = load_checkpoint(tmp_path / "released.pth")
    assert (loaded.config.scale, loaded.config.channels, loaded.config.blocks, loaded.config.graph_after) == (
        scale,
        8,
        3,
        1,
    )
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_full_size_released_format(tmp_path: Path) -> None:
    net = IGNN(IGNNConfig.preset("ignn", scale=2))
    torch.save({"net_state_dict": as_released(net, "module.")}, tmp_path / "released.pth")
    assert load_checkpoint(tmp_path / "released.pth").config == net.config


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    save_checkpoint(small(), tmp_path / "net.pt")
    whole = (tmp_path / "net.pt").read_bytes()
    files = {
        "empty.pt": (b"", "it is empty"),
        "picture.pt": (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG image"),
        "truncated.pt": (whole[: len(whole) // 2], "truncated"),
        "text.pt": (b"hello", "not a PyTorch file"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_other_weights_are_named(tmp_path: Path) -> None:
    torch.save({"params": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="it holds the keys params"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"net_state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"without head\.0\.weight"):
        load_checkpoint(tmp_path / "b.pt")
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint(tmp_path / "c.pt")
    weights = as_released(small(), "")
    del weights["fuse_b.0.0.weight"]
    torch.save({"net_state_dict": weights}, tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match=r"fuse_b\.0\.0\.weight"):
        load_checkpoint(tmp_path / "d.pt")


def test_the_stage_says_what_was_trained(tmp_path: Path) -> None:
    save_checkpoint(small(), tmp_path / "whole.pt")
    save_checkpoint(small(), tmp_path / "edsr.pt", stage="backbone")
    torch.save({"net_state_dict": as_released(small(), "")}, tmp_path / "released.pth")
    found = {name: read_checkpoint(tmp_path / name) for name in ("whole.pt", "edsr.pt", "released.pth")}
    assert {name: checkpoint.stage for name, checkpoint in found.items()} == {
        "whole.pt": "whole",
        "edsr.pt": "backbone",
        "released.pth": "whole",
    }
    assert [checkpoint.has_embedding for checkpoint in found.values()] == [True, False, True]
    assert all(checkpoint.run is None for checkpoint in found.values())


def test_a_damaged_content_is_named(tmp_path: Path) -> None:
    save_checkpoint(small(), tmp_path / "good.pt")
    good = torch.load(tmp_path / "good.pt", weights_only=True)
    for change, message in (
        ({"config": None}, "no network configuration"),
        ({"config": {**good["config"], "depth": 3}}, r"does not know: Unknown configuration field \(depth\)"),
        ({"config": {**good["config"], "channels": 9}}, r"head\.0\.weight is \(8, 3, 3, 3\), not \(9, 3, 3, 3\)"),
        ({"weights": {"a": 1}}, "'weights' is not a dictionary of tensors"),
        ({"weights": {**good["weights"], "extra": torch.zeros(1)}}, "extra is not of this network"),
        ({"fit": 7}, "damaged training run"),
        ({"raw_weights": {}}, "lacks fit, step"),
    ):
        torch.save({**good, **change}, tmp_path / "bad.pt")
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / "bad.pt")


def test_reading_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"net_state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()

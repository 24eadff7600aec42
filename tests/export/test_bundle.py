"""Bundling: the exported file, its entry and its checkpoint belong together, or nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export import bundle
from runtime import models
from runtime.cli import run_command
from train import IGNN, IGNNConfig, load_checkpoint, save_checkpoint
from train.checkpoint import read_checkpoint
from train.evaluate import load_upscaler


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("models", "Tiny"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(bundle, "MODELS", tmp_path / "models")
    monkeypatch.setattr(models, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path / "weights")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "Tiny" / "a.png")
    torch.manual_seed(0)
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)), tmp_path / "net.pt")
    return tmp_path


def run(folders: Path, *more: str) -> int:
    arguments = ["--checkpoint", str(folders / "net.pt"), "--name", "tiny-x2", "--data", str(folders / "Tiny"), *more]
    return run_command("python -m export.bundle", lambda: bundle.main(arguments))


def assert_kept(original: Path, kept: Path) -> None:
    found = load_checkpoint(kept).state_dict()
    for name, value in load_checkpoint(original).state_dict().items():
        assert torch.equal(found[name], value.half().float()), name


def test_file_entry_and_checkpoint_belong_together(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders) == 0
    assert "| tiny-x2 |" in capsys.readouterr().out
    (model,) = models.bundled_models()
    assert model.checked_path()
    assert set(model.psnr_y_db) == {"Tiny"}
    assert model.kind == "graph"
    assert_kept(folders / "net.pt", folders / "weights" / "tiny-x2.pt")
    assert sorted(p.name for p in (folders / "models").iterdir()) == ["models.json", "tiny-x2.onnx"]


def test_the_backbone_it_began_at(folders: Path) -> None:
    net = load_checkpoint(folders / "net.pt")
    save_checkpoint(net, folders / "edsr.pt", stage="backbone")
    assert run(folders, "--backbone", str(folders / "edsr.pt")) == 0
    kept = folders / "weights" / "tiny-x2-backbone.pt"
    assert read_checkpoint(kept).stage == "backbone"
    assert_kept(folders / "edsr.pt", kept)
    lr = torch.rand(1, 3, 12, 12) * 255
    torch.testing.assert_close(
        load_checkpoint(kept).forward_backbone(lr), net.forward_backbone(lr), atol=0.5, rtol=0.01
    )


def test_a_whole_network_for_the_backbone(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--backbone", str(folders / "net.pt")) == 1
    assert "is not of stage backbone" in capsys.readouterr().err
    assert not list((folders / "models").iterdir())


def test_a_failure_changes_nothing(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "Tiny" / "a.png").write_bytes(b"no image")
    assert run(folders) == 1
    assert "a.png" in capsys.readouterr().err
    assert not list((folders / "models").iterdir())


def test_a_whole_network_without_its_graph(folders: Path) -> None:
    assert run(folders, "--without-graph") == 0
    (model,) = models.bundled_models()
    assert model.kind == "plain"
    kept = load_checkpoint(folders / "weights" / "tiny-x2.pt")
    assert kept.config.graph == "none"
    expected = load_checkpoint(folders / "net.pt").half().float().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in kept.state_dict().items())


def test_a_backbone_is_bundled_as_a_plain_model(folders: Path) -> None:
    net = load_checkpoint(folders / "net.pt")
    save_checkpoint(net, folders / "net.pt", stage="backbone")
    assert run(folders) == 0
    (model,) = models.bundled_models()
    assert model.kind == "plain"
    upscale, _ = load_upscaler(folders / "models" / model.file)
    lr = np.random.default_rng(0).integers(0, 256, (14, 16, 3), dtype=np.uint8)
    expected = net.forward_backbone(torch.from_numpy(lr).permute(2, 0, 1)[None].float())
    np.testing.assert_allclose(upscale(lr), expected[0].permute(1, 2, 0).detach(), atol=0.5)
    # Whoever trains on begins at a backbone, whose graph is random.
    assert read_checkpoint(folders / "weights" / "tiny-x2.pt").stage == "backbone"
    kept = (folders / "weights" / "tiny-x2.pt").read_bytes()

    # From the kept weights: the same model, and nothing is kept twice.
    (folders / "net.pt").unlink()
    (folders / "weights" / "tiny-x2.pt").rename(folders / "weights" / "backbone.pt")
    (folders / "net.pt").symlink_to(folders / "weights" / "backbone.pt")
    assert run(folders) == 0
    (again,) = models.bundled_models()
    # The file also says how much memory a run took, which is measured anew and never the same to the byte.
    assert replace(again, sha256=model.sha256, size_bytes=model.size_bytes) == model
    np.testing.assert_array_equal(load_upscaler(folders / "models" / again.file)[0](lr), upscale(lr))
    assert [(path.name, path.read_bytes()) for path in (folders / "weights").iterdir()] == [("backbone.pt", kept)]

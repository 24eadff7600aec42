"""The curves of runs: what is kept, what is drawn, what is refused."""

from __future__ import annotations

import json

import pytest

from runtime.errors import UsageError
from train.checkpoint import RunState, save_checkpoint
from train.config import IGNNConfig
from train.curve import main
from train.fit_config import FitConfig
from train.model import IGNN


@pytest.fixture
def make_run(tmp_path):
    def make(name, stage, records):
        folder = tmp_path / name
        folder.mkdir()
        net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1))
        fit = vars(FitConfig(data="/somewhere/photographs", stage=stage, muon=0.01, learning_rate=3e-4))
        run = RunState(
            fit=fit, step=20, raw_weights=net.state_dict(), optimizer={}, data_sha256="", versions={},
            graph_picture={}, processes=1,
        )  # fmt: skip
        save_checkpoint(net, folder / "last.pt", run=run)
        (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(folder)

    return make


LOSSES = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}]
SHARES = {"graph_share_fuse_b": 0.0, "graph_share_fuse_up": 0.25}


def test_validations_and_settings_are_kept(make_run, tmp_path):
    pytest.importorskip("matplotlib")
    points = [{"step": 10, "psnr": 30.0}, {"step": 20, "psnr": 30.5}]
    plain = make_run("edsr", "backbone", [*LOSSES, *points])
    whole = make_run("ignn", "whole", [LOSSES[0], points[0] | SHARES, points[1] | SHARES])
    plot = tmp_path / "curves" / "x2.svg"
    assert main([plain, whole, "-o", str(plot)]) == 0
    text = plot.with_suffix(".json").read_text()
    assert "somewhere" not in text
    first, second = json.loads(text)["runs"]
    assert (first["name"], first["points"]) == ("edsr", points)
    assert first["settings"]["muon"] == 0.01
    assert first["settings"]["network"]["channels"] == 8
    assert second["points"][1] == points[1] | SHARES
    assert "<svg" in plot.read_text()


def test_the_same_runs_draw_the_same_file(make_run, tmp_path):
    pytest.importorskip("matplotlib")
    run = make_run("ignn", "whole", [{"step": 1, "psnr": 30.0} | SHARES])
    for name in ("a.svg", "b.svg"):
        main([run, "-o", str(tmp_path / name)])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_what_is_no_run_is_refused(make_run, tmp_path):
    with pytest.raises(UsageError, match="--output of `ignn train`"):
        main([str(tmp_path), "-o", str(tmp_path / "c.svg")])
    with pytest.raises(UsageError, match="has not validated yet"):
        main([make_run("young", "whole", LOSSES), "-o", str(tmp_path / "c.svg")])
    with pytest.raises(UsageError, match="an SVG file"):
        main([make_run("ok", "whole", LOSSES), "-o", str(tmp_path / "c.png")])
    assert not list(tmp_path.glob("c.*"))

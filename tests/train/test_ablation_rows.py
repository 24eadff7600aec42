"""The paper's tables by name: rows, results, resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from runtime.cli import run_command
from train import ablation
from train.ablation import ROWS, choose
from train.config import IGNNConfig


def main(arguments):
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn ablation", lambda: ablation.main(arguments))


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        coarse.resize((80, 64), Image.Resampling.BICUBIC).save(folder / "photos" / f"{number}.png")
    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "2.weight": (64, 64, 3, 3), "2.bias": (64,)}
    torch.save({f"features.{name}": torch.zeros(shape) for name, shape in shapes.items()}, folder / "vgg.pth")
    return folder


def command(material, output, *rows):
    network = [
        "--network",
        "channels=4",
        "--network",
        "blocks=2",
        "--network",
        "graph_after=1",
        "--network",
        "window=4",
    ]
    training = ["--data", str(material / "photos"), "--embedding", str(material / "vgg.pth"), "--device", "cpu"]
    short = ["--steps", "1", "--batch", "1", "--patch", "18", "--no-tensorboard"]
    folders = ["--evaluate", str(material / "photos"), "--output", str(output)]
    return [*rows, *folders, "--", *training, *short, *network]


def test_every_row_is_a_network():
    counts = [len(choose([f"table{number}"])) for number in range(1, 7)]
    assert counts == [3, 4, 3, 4, 11, 4]
    assert sum(counts) == len(ROWS)
    for row in ROWS.values():
        config = IGNNConfig.preset("ignn", scale=row.scale, **row.network)
        assert config.blocks == 32
    full = ("table2-graphagg", "table3-after-16", "table4-d30", "table5-k5", "table6-both", "table1-x2")
    assert len({IGNNConfig.preset("ignn", **ROWS[name].network) for name in full}) == 1


def test_rows_are_trained_measured_and_not_run_twice(material, tmp_path, capsys):
    arguments = command(material, tmp_path, "table2", "table6")
    assert main(arguments) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    assert [record["row"] for record in content["records"]] == choose(["table2", "table6"])
    records = {record["row"]: record for record in content["records"]}
    assert records["table2-edsr"]["network"]["graph"] == "none"
    assert records["table6-neither"]["network"]["adapn"] is False
    # The full network is in both tables, trained once.
    assert records["table6-both"]["network_psnr"] == records["table2-graphagg"]["network_psnr"]
    assert not (tmp_path / "table6-both-seed0").exists()
    psnr = records["table2-non-local"]["network_psnr"]["photos"]
    assert f"| non-local block | x2 | 1 | {psnr:.3f} |" in (tmp_path / "results.md").read_text()

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/last.pt")}
    assert main([*arguments[:2], "--seeds", "0", "1", *arguments[2:]]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in trained.items())
    assert "(" in (tmp_path / "results.md").read_text().splitlines()[2]  # mean and range of two seeds
    capsys.readouterr()
    assert main([*arguments, "--clip", "1"]) == 1
    assert "other flags" in capsys.readouterr().err


def test_table_1_is_measured_with_self_ensemble(material, tmp_path):
    assert main(command(material, tmp_path, "table1-x3")) == 0
    assert "| IGNN x3+ | x3 |" in (tmp_path / "results.md").read_text()


def test_a_stopped_row_is_no_result(material, tmp_path, capsys):
    arguments = command(material, tmp_path, "table2-edsr")
    assert main([*arguments, "--steps", "100000", "--time-limit", "0.005"]) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


def test_unknown_row_is_named(material, tmp_path, capsys):
    assert main(command(material, tmp_path, "table7")) == 1
    assert "Unknown row ('table7')" in capsys.readouterr().err

"""Evaluation: the protocol's known figures, self-ensemble, both model formats, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import train.evaluate
from runtime.cli import run_command
from train.checkpoint import save_checkpoint
from train.config import IGNNConfig
from train.data import make_lr
from train.evaluate import evaluate, load_upscaler, self_ensemble, summarise
from train.metrics import psnr
from train.model import IGNN
from train.resize import upsample_uint8

BICUBIC = {"Set5": {2: 33.67, 3: 30.40, 4: 28.43}, "Set14": {2: 30.23, 3: 27.54, 4: 25.99}}


def main(arguments):
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn evaluate", lambda: train.evaluate.main(arguments))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, mode in (("a.png", "RGB"), ("b.png", "L")):
        pixels = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((47, 42), Image.Resampling.BICUBIC).convert(mode).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)), path)
    return path


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dataset", ["Set5", "Set14"])
def test_bicubic_has_the_published_figures(shared, dataset, scale):
    (row,) = summarise(evaluate({}, [shared / "data" / dataset], scale))
    assert round(row["psnr"], 2) == BICUBIC[dataset][scale]


def test_command_writes_the_tables(photos, checkpoint, tmp_path, capsys):
    arguments = [str(checkpoint), "--data", str(photos), "--self-ensemble"]
    outputs = ["--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")]
    assert main(arguments + outputs) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert [row["method"] for row in content["summary"]] == ["bicubic", "tiny", "tiny+"]
    assert {score["image"] for score in content["scores"]} == {"a.png", "b.png"}
    table = (tmp_path / "out.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| bicubic | {content['summary'][0]['psnr']:.2f} / " in table


@pytest.mark.parametrize("flag", ["--json", "--markdown"])
def test_a_missing_folder_is_said_before_measuring(photos, checkpoint, tmp_path, capsys, flag):
    assert main([str(checkpoint), "--data", str(photos), flag, str(tmp_path / "none" / "out")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"mkdir -p {tmp_path / 'none'}" in captured.err


def test_grayscale_is_measured_as_it_stands(photos):
    scores = {score.image: score for score in evaluate({}, [photos], 2)}
    rgb = np.asarray(Image.open(photos / "b.png").convert("RGB"))
    # The luma range is 219 of 255 levels: measured as RGB the same error would seem 1.32 dB smaller.
    lr, hr = make_lr(rgb, 2)
    as_rgb = psnr(upsample_uint8(lr, 2), hr, 2)
    assert scores["b.png"].psnr == pytest.approx(as_rgb - 20 * np.log10(255 / 219), abs=1e-9)


def test_self_ensemble_commutes_with_turning(checkpoint):
    upscale, scale = load_upscaler(checkpoint)
    assert scale == 2
    lr = np.random.default_rng(1).integers(0, 256, (14, 16, 3), dtype=np.uint8)
    ensemble = self_ensemble(upscale)
    np.testing.assert_allclose(ensemble(np.rot90(lr)), np.rot90(ensemble(lr)), atol=1e-3)
    assert np.abs(ensemble(lr) - upscale(lr)).max() > 1e-3


def test_a_backbone_is_measured_without_its_untrained_graph(tmp_path):
    net = IGNN(IGNNConfig(channels=8, blocks=2, graph_after=1)).eval()
    save_checkpoint(net, tmp_path / "edsr.pt", stage="backbone")
    lr = np.random.default_rng(1).integers(0, 256, (14, 16, 3), dtype=np.uint8)
    upscale, _ = load_upscaler(tmp_path / "edsr.pt")
    tensor = torch.from_numpy(lr).permute(2, 0, 1)[None].float()
    np.testing.assert_allclose(upscale(lr), net.forward_backbone(tensor)[0].permute(1, 2, 0).detach(), atol=1e-4)


def test_onnx_file_by_its_metadata(photos, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    float_type = onnx.TensorProto.FLOAT
    values = [
        onnx.helper.make_tensor_value_info(name, float_type, [1, 3, f"{name}_h", f"{name}_w"]) for name in ("lr", "sr")
    ]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "scales")
    node = onnx.helper.make_node("Resize", ["lr", "", "scales"], ["sr"], mode="nearest")
    graph = onnx.helper.make_graph([node], "nearest", values[:1], values[1:], [scales])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, tmp_path / "silent.onnx")
    onnx.helper.set_model_props(model, {"ignn.scale": "2"})
    onnx.save(model, tmp_path / "nearest.onnx")

    assert main([str(tmp_path / "nearest.onnx"), "--data", str(photos)]) == 0
    assert "| nearest |" in capsys.readouterr().out
    assert main([str(tmp_path / "silent.onnx"), "--data", str(photos)]) == 1
    assert "--scale 2 --value-range 0..1" in capsys.readouterr().err
    tables = []
    for file, more in (("nearest", []), ("silent", ["--scale", "2", "--value-range", "0..255"])):
        assert main([str(tmp_path / f"{file}.onnx"), "--data", str(photos), *more]) == 0
        tables.append(capsys.readouterr().out.replace(file, "model"))
    assert tables[0] == tables[1]


def test_errors_are_one_line(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    for arguments, message in (
        ([str(checkpoint), "--data", str(photos), "--scale", "3"], "upscales x2, not x3"),
        ([str(tmp_path / "none.pt"), "--data", str(photos)], "does not exist"),
        ([str(checkpoint), "--data", str(tmp_path / "nowhere")], "No image in"),
        ([str(checkpoint), "--data", str(tmp_path)], "broken.png"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

"""Whole exports of small networks: the file's form, its results, and what happens when it is wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from shared_exports import KINDS, Exported, network

from export import to_onnx
from export.check import ExportError
from export.precision import round_weights
from export.sample import sample
from export.to_onnx import export_onnx
from runtime import SuperResolver
from runtime.cli import run_command
from runtime.errors import UsageError
from runtime.metadata import STAGES
from train import save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn export", lambda: to_onnx.main(arguments))


@pytest.mark.parametrize("scale", [2, 4])
def test_a_backbone_is_exported_as_a_network_without_a_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: int
) -> None:
    save_checkpoint(network(scale), tmp_path / "edsr.pt", stage="backbone")
    paths = ["--checkpoint", str(tmp_path / "edsr.pt"), "--output", str(tmp_path / "edsr.onnx")]
    assert main([*paths, "--precision", "fp16" if scale == 4 else "fp32"]) == 0
    assert "plain EDSR" in capsys.readouterr().out
    model = onnx.load(tmp_path / "edsr.onnx")
    assert [entry.domain for entry in model.opset_import] == [""]
    assert not model.functions
    lr = sample(2, 21, 34, seed=0)
    with torch.no_grad():
        expected = network(scale).forward_backbone(torch.from_numpy(lr)).numpy()
    np.testing.assert_allclose(run(tmp_path / "edsr.onnx", lr), expected, atol=1.0 if scale == 4 else 0.02)
    if scale == 2:  # the runtime's tiles, by the halo in the file
        picture = lr[0].transpose(1, 2, 0).astype(np.uint8)
        whole, tiled = SuperResolver(tmp_path / "edsr.onnx"), SuperResolver(tmp_path / "edsr.onnx", tile=8)
        assert len(tiled.network.plan(21, 34)) == 15
        np.testing.assert_array_equal(tiled(picture), whole(picture))


def run(path: Path, lr: np.ndarray) -> np.ndarray:
    (sr,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["sr"], {"lr": lr})
    return sr


@pytest.mark.parametrize("kind", list(KINDS))
def test_any_size_and_batch(exported: Exported, kind: str) -> None:
    net, path = exported(kind)
    if "weights" in kind:
        net = round_weights(net)
    scale = net.config.scale
    for N, H, W in [(1, 1, 1), (3, 2, 30), (1, 25, 70), (2, 64, 37)]:
        lr = sample(N, H, W, seed=H)
        with torch.no_grad():
            expected = net(torch.from_numpy(lr)).numpy()
        sr = run(path, lr)
        assert sr.shape == (N, 3, scale * H, scale * W)
        assert sr.dtype == np.float32
        np.testing.assert_allclose(sr, expected, rtol=0, atol=0.6 if kind == "fp16" else 0.02)


def test_the_file_is_what_runtimes_expect(exported: Exported) -> None:
    _, path = exported("fp32")
    model = onnx.load(path)
    (lr,), (sr,) = model.graph.input, model.graph.output
    assert (lr.name, sr.name) == ("lr", "sr")
    assert all(not dim.HasField("dim_value") for dim in [*lr.type.tensor_type.shape.dim][::2])
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    assert opsets == {"": 20, "ignn": 1, STAGES: 1}
    ours = [node for node in model.graph.node if node.domain == "ignn"]
    assert [node.op_type for node in ours] == ["WindowedKnn", "KeyStatistics"] + 5 * ["AdaPNGather"]
    for node in ours:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert attributes["plugin_namespace"] == b"ignn"
        assert attributes["plugin_version"] == b"1"
        assert attributes["scale"] == 2
    called = {(node.domain, node.op_type) for node in model.graph.node if node.domain}
    assert called == {("ignn", node.op_type) for node in ours}  # the stages stand beside the graph
    assert called < {(function.domain, function.name) for function in model.functions}
    assert {item.key: item.value for item in model.metadata_props}["ignn.precision"] == "fp32"
    assert str(REPOSITORY).encode() not in path.read_bytes()


def test_a_network_of_errors_is_its_operators_and_refuses_half_precision(exported: Exported, tmp_path: Path) -> None:
    net, path = exported("errors")
    model = onnx.load(path)
    ours = [node.op_type for node in model.graph.node if node.domain == "ignn"]
    assert ours == ["WindowedKnn"] + 5 * ["AdaPNGather"]
    assert not any(function.domain == STAGES for function in model.functions)
    with pytest.raises(UsageError, match="float16 would find others"):
        export_onnx(net, tmp_path / "half.onnx", precision="fp16")


def test_neighbors_are_folded_one_after_another(exported: Exported) -> None:
    _, path = exported("fp32")
    nodes = list(onnx.load(path).graph.node)
    producer = {name: node for node in nodes for name in node.output}

    def depends(node: onnx.NodeProto, seen: set[str]) -> set[str]:
        for name in node.input:
            if name in producer and name not in seen:
                seen.add(name)
                depends(producer[name], seen)
        return seen

    folds = [node for node in nodes if node.op_type == "AdaPNGather"]
    for earlier, later in pairwise(folds):
        assert earlier.output[0] in depends(later, set())


def test_half_precision_keeps_input_and_output_and_halves_the_graph_construction(exported: Exported) -> None:
    _, path = exported("fp16")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    real, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types.update({item.name: item.data_type for item in model.graph.initializer})
    assert {value.type.tensor_type.elem_type for value in [*model.graph.input, *model.graph.output]} == {real}
    by_type = {kind: [n for n in model.graph.node if n.op_type == kind] for kind in ("WindowedKnn", "Softmax", "Conv")}
    assert {types[node.input[0]] for node in by_type["Softmax"]} == {real}
    (construction,) = by_type["WindowedKnn"]  # in half, so that TensorRT's plugin takes the tensor cores
    assert [types[name] for name in construction.input] == [half, half]
    assert types[construction.output[1]] == half
    (statistics,) = (node for node in model.graph.node if node.op_type == "KeyStatistics")
    assert [types[name] for name in (*statistics.input, *statistics.output)] == [half, real, real]
    for node in model.graph.node:
        if node.op_type == "AdaPNGather":
            assert node.input[1:3] == statistics.output
    precisions = [types[node.input[1]] for node in by_type["Conv"]]
    assert precisions.count(real) == 8  # two of the reduction, three of each embedding
    assert precisions.count(half) == len(precisions) - 8
    # The statistics of what is 16 bits wide are not: the bodies widen first.
    for function in model.functions:
        assert any(node.op_type == "Cast" and node.attribute[0].i == real for node in function.node)


def test_what_overflows_in_float16_is_refused(tmp_path: Path) -> None:
    """ONNX Runtime computes the file itself in float32 and does not see it."""
    net = network()
    with torch.no_grad():  # the maps in between are 2^14 times as large, the result is the same
        for parameter in net.fuse_b[0][0].parameters():
            parameter *= 2**14
        net.fuse_b[1][0].weight /= 2**14
    with pytest.raises(ExportError, match="with tensors rounded to float16 inf"):
        export_onnx(net, tmp_path / "m.onnx", precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_half_weights_are_half_the_file(exported: Exported) -> None:
    net, path = exported("fp32 with half weights")
    graph = onnx.load(path).graph
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert sum(len(item.raw_data) for item in graph.initializer) < 2.5 * parameters
    assert any(item.name == "net.embedding.model.2.weight.fp16" for item in graph.initializer)


def test_a_file_that_differs_is_not_written(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, path = exported("fp32")
    net = copy.deepcopy(shared)
    with torch.no_grad():
        net.head[0].bias += 1
    monkeypatch.setattr("export.to_onnx.to_onnx", lambda net: onnx.load(path))
    with pytest.raises(ExportError, match="nothing was written"):
        export_onnx(net, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("checkpoint", "output", "message"),
    [
        ("missing.pt", "m.onnx", "does not exist"),
        ("net.pt", "no/m.onnx", "mkdir -p"),
        ("text.pt", "m.onnx", "cannot be read"),
    ],
)
def test_errors_are_messages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: str, output: str, message: str
) -> None:
    save_checkpoint(network(), tmp_path / "net.pt")
    (tmp_path / "text.pt").write_text("not weights")
    assert main(["--checkpoint", str(tmp_path / checkpoint), "--output", str(tmp_path / output)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_as_a_script_from_anywhere(tmp_path: Path) -> None:
    save_checkpoint(network(), tmp_path / "net.pt")
    script = str(REPOSITORY / "export" / "to_onnx.py")
    command = [sys.executable, script, "--checkpoint", "net.pt", "--output", "m.onnx"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("worst difference") == 6  # three sizes, as one graph and in stages
    assert (tmp_path / "m.onnx").is_file()

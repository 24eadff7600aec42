"""What is compared is comparable: convolutions alone, the straightforward version; one benchmark from end to end."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from benchmarks import baseline, graph_overhead, subjects
from benchmarks.__main__ import NAMES, main
from benchmarks.results import read


@pytest.fixture(scope="module")
def tiny() -> Path:
    return subjects.onnx_file("tiny", random_weights=True)


def convolution_shapes(model: onnx.ModelProto, lr: np.ndarray) -> dict[str, tuple[int, ...]]:
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return {name: array.shape for name, array in zip(names, session.run(names, {"lr": lr}), strict=True)}


@pytest.mark.parametrize("size", [(1, 32, 46), (2, 21, 27)])
def test_convolutions_alone_are_all_of_them_on_the_same_shapes(tiny: Path, size: tuple[int, int, int]) -> None:
    alone = graph_overhead.convolutions_alone(onnx.load(tiny))
    assert not {node.op_type for node in alone.graph.node} & {"WindowedKnn", "KeyStatistics", "AdaPNGather"}
    lr = subjects.lr_input(size[1], size[2], size[0])
    shapes = convolution_shapes(onnx.load(tiny), lr)
    assert len(shapes) > 20
    assert convolution_shapes(alone, lr) == shapes


def test_no_two_convolutions_can_be_merged(tiny: Path, tmp_path: Path) -> None:
    onnx.save(graph_overhead.convolutions_alone(onnx.load(tiny)), tmp_path / "alone.onnx")
    counts = []
    for path in (tiny, tmp_path / "alone.onnx"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
        counts.append(sum("Conv" in node.op_type for node in nodes))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(("N", "H", "W"), [(1, 24, 32), (1, 21, 27), (2, 18, 25)])
def test_the_straightforward_version_is_the_network(N: int, H: int, W: int) -> None:
    net = subjects.network("tiny")
    lr = torch.from_numpy(subjects.lr_input(H, W, N)).clone()
    lr[-1] = lr[-1].flip(-1)
    with torch.inference_mode():
        torch.testing.assert_close(baseline.straightforward(net, lr), net(lr), rtol=0, atol=1e-3)


def test_the_photograph_has_any_size() -> None:
    small, large = subjects.photograph(20, 30), subjects.photograph(400, 700)
    assert small.shape == (20, 30, 3)
    assert large.shape == (400, 700, 3)
    assert (large[:20, :30] == small).all()
    assert large[300:].std() > 10


def test_one_benchmark_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["memory", "--quick", "--output", str(tmp_path)]
    assert main(command) == 0
    assert "64 x 64" in capsys.readouterr().out
    document = read(tmp_path / "memory.json")
    peaks = [found["peak_bytes"] for found in document["rows"][0]["measurements"]["alternatives"].values()]
    assert 30e6 < min(peaks) < max(peaks) < 400e6
    assert len(document["targets"]) >= 2
    json.dumps(document)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_what_the_command_calls(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert all(callable(getattr(module, function)) for function in ("cases", "measure", "targets", "table"))

"""The ONNX bodies of the three graph operators against the torch operators, on ONNX Runtime's CPU provider."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import train.ops  # noqa: F401 -- registers torch.ops.ignn
from export.functions import DOMAIN, DOMAIN_VERSION, OPSET, functions
from runtime.models import FOLDER

PLUGIN = {"plugin_namespace": "ignn", "plugin_version": "1"}


@lru_cache
def session(op_type: str, half: bool = False, **attributes: float) -> onnxruntime.InferenceSession:
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    inputs, outputs = {
        "WindowedKnn": (
            [("query", real, ["N", "E", "H", "W"]), ("key", real, ["N", "E", "h", "w"])],
            [("index", TensorProto.INT32, ["N", "m1", "m2", "k"]), ("edge", real, ["N", "k", "E", "m1", "m2"])],
        ),
        "KeyStatistics": (
            [("features", real, ["N", "C", "H", "W"])],
            [(name, TensorProto.FLOAT, ["N", "n1", "n2", "C"]) for name in ("key_mean", "key_std")],
        ),
        "AdaPNGather": (
            [
                ("features", real, ["N", "C", "H", "W"]),
                *((name, TensorProto.FLOAT, ["N", "n1", "n2", "C"]) for name in ("key_mean", "key_std")),
                ("index", TensorProto.INT32, ["N", "m1", "m2"]),
            ],
            [("folded", real, ["N", "C", "sH", "sW"])],
        ),
    }[op_type]
    names = [item[0] for item in inputs], [item[0] for item in outputs]
    node = helper.make_node(op_type, *names, domain=DOMAIN, **PLUGIN, **attributes)
    infos = [[helper.make_tensor_value_info(*item) for item in items] for items in (inputs, outputs)]
    graph = helper.make_graph([node], op_type, *infos)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions(), ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def distances(query: torch.Tensor, key: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the exact (float64) squared distances of the patches that `index` names."""

    def patches(x: torch.Tensor) -> torch.Tensor:
        H, W = x.shape[-2:]
        x = torch.nn.functional.pad(x.double(), (0, W % 2 == 0, 0, H % 2 == 0))
        return torch.nn.functional.unfold(x, 3, stride=2).mT

    N, m1, m2, k = index.shape
    picked = torch.stack([p[i] for p, i in zip(patches(key), index.reshape(N, -1).long(), strict=True)])
    return (picked.reshape(N, m1 * m2, k, -1) - patches(query)[:, :, None]).square().sum(-1).reshape(index.shape)


def check_knn(N: int, E: int, H: int, W: int, k: int, window: int, scale: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.rand(N, E, H, W, generator=generator)
    key = torch.rand(N, E, H // scale, W // scale, generator=generator)
    index, edge = torch.ops.ignn.windowed_knn(query, key, k, window, scale)
    onnx_index, onnx_edge = session("WindowedKnn", k=k, window=window, scale=scale).run(
        None, {"query": query.numpy(), "key": key.numpy()}
    )
    assert onnx_index.dtype == np.int32
    differ = torch.from_numpy(onnx_index) != index
    # Different neighbors are equally near, up to rounding.
    gap = (distances(query, key, torch.from_numpy(onnx_index)) - distances(query, key, index)).abs()
    assert float(gap.max()) < 1e-4
    assert float(differ.float().mean()) < 0.01
    same = (~differ).permute(0, 3, 1, 2)[:, :, None].expand_as(edge)
    assert float((torch.from_numpy(onnx_edge) - edge)[same].abs().max()) < 1e-4


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize(("N", "H", "W"), [(1, 40, 40), (2, 37, 53), (1, 18, 131), (1, 130, 19), (3, 12, 12)])
@pytest.mark.parametrize("window", [3, 8, 30])
def test_windowed_knn_is_the_torch_operator(N: int, H: int, W: int, scale: int, window: int) -> None:
    k = min(5, (min(H, W) // scale // 2) ** 2)
    check_knn(N, 6, H, W, k, window, scale)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(12, 75),
    st.integers(12, 75),
    st.sampled_from([2, 3]),
    st.sampled_from([2, 5, 30]),
    st.integers(0, 99),
)
def test_windowed_knn_at_any_size(N: int, H: int, W: int, scale: int, window: int, seed: int) -> None:
    check_knn(N, 3, H, W, 4, window, scale, seed)


def test_exact_ties_go_to_the_lower_index() -> None:
    query, key = torch.zeros(1, 4, 40, 44), torch.zeros(1, 4, 20, 22)
    feeds = {"query": query.numpy(), "key": key.numpy()}
    onnx_index, onnx_edge = session("WindowedKnn", k=5, window=6, scale=2).run(None, feeds)
    rows, columns = np.clip(np.arange(20) // 2 - 3, 0, 4), np.clip(np.arange(22) // 2 - 3, 0, 5)
    first = rows[:, None] * 11 + columns
    np.testing.assert_array_equal(onnx_index[0], first[..., None] + np.arange(5))
    assert not onnx_edge.any()


def test_windowed_knn_in_half_precision_orders_by_float32_distances() -> None:
    generator = torch.Generator().manual_seed(1)
    query = (200 * torch.rand(1, 64, 32, 30, generator=generator)).half()
    key = (200 * torch.rand(1, 64, 16, 15, generator=generator)).half()
    index, edge = torch.ops.ignn.windowed_knn(query.float(), key.float(), 5, 30, 2)
    onnx_index, onnx_edge = session("WindowedKnn", True, k=5, window=30, scale=2).run(
        None, {"query": query.numpy(), "key": key.numpy()}
    )
    assert onnx_edge.dtype == np.float16
    assert (onnx_index == index.numpy()).mean() > 0.999
    np.testing.assert_allclose(onnx_edge, edge.numpy(), rtol=2e-3)


def fold(features: torch.Tensor, index: torch.Tensor, scale: int) -> np.ndarray:
    statistics = torch.ops.ignn.key_statistics(features, scale, 1e-5)
    return torch.ops.ignn.adapn_gather(features, *statistics, index, scale, 1e-5).numpy()


def check_adapn(N: int, C: int, H: int, W: int, scale: int, seed: int = 0, half: bool = False) -> None:
    generator = torch.Generator().manual_seed(seed)
    # A common level with small detail: sums of squares would lose the variance.
    features = 10 + 0.1 * torch.rand(N, C, H, W, generator=generator)
    keys = (H // scale // 2) * (W // scale // 2)
    index = torch.randint(keys, (N, H // 2, W // 2), generator=generator, dtype=torch.int32)
    if half:
        features = features.half()
    exact, in_torch = (fold(x, index, scale) for x in (features.double(), features.float()))
    statistics = session("KeyStatistics", half, scale=scale, eps=1e-5).run(None, {"features": features.numpy()})
    expected = torch.ops.ignn.key_statistics(features.double(), scale, 1e-5)
    for found, value in zip(statistics, expected, strict=True):
        np.testing.assert_allclose(found, value.numpy(), rtol=1e-5, atol=1e-5)
    feeds = {"features": features.numpy(), "key_mean": statistics[0], "key_std": statistics[1], "index": index.numpy()}
    (actual,) = session("AdaPNGather", half, scale=scale, eps=1e-5).run(None, feeds)
    assert actual.shape == exact.shape
    assert actual.dtype == features.numpy().dtype
    error = np.abs(actual - exact) - (1e-3 * np.abs(exact) if half else 0)
    assert error.max() < 4 * np.abs(in_torch - exact).max() + 1e-4


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize(("N", "H", "W"), [(1, 24, 24), (2, 37, 23), (1, 12, 61), (3, 13, 12)])
def test_adapn_gather_is_the_torch_operator(N: int, H: int, W: int, scale: int, half: bool) -> None:
    check_adapn(N, 5, H, W, scale, half=half)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(6, 50), st.integers(6, 50), st.sampled_from([2, 3]), st.integers(0, 99))
def test_adapn_gather_at_any_size(N: int, H: int, W: int, scale: int, seed: int) -> None:
    check_adapn(N, 3, H, W, scale, seed)


def test_bodies_keep_to_operators_that_tensorrt_imports_and_never_scatter() -> None:
    def operators(nodes: list[onnx.NodeProto]) -> set[str]:
        found = set()
        for node in nodes:
            found.add(node.op_type)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    found |= operators(list(attribute.g.node))
        return found

    for function in functions():
        used = operators(list(function.node))
        assert not used & {"Col2Im", "ScatterND", "ScatterElements", "SequenceConstruct", "If", "NonZero"}


def test_onnx_runtime_computes_what_the_calls_have_in_common_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The blocks and the statistics of the queries' patches, which each of the five calls of AdaPNGather needs."""
    source = FOLDER / "ignn-s-x2.onnx"
    model = onnx.load(source)
    bodies = [function for function in model.functions if function.name in ("KeyStatistics", "AdaPNGather")]
    assert len(bodies) == 2
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "merged.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    once = sum(node.op_type == "Add" for body in bodies for node in body.node)
    assert capfd.readouterr().err == ""  # no warnings
    left = sum(node.op_type == "Add" for node in onnx.load(tmp_path / "merged.onnx").graph.node)
    assert left < 2.5 * once

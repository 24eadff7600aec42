"""The kernels on a GPU: through the torch operators, through the plugin's own enqueue, and under compute-sanitizer."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toolchain import Build, tool

torch = pytest.importorskip("torch")
ops = pytest.importorskip("train.ops")

pytestmark = pytest.mark.gpu

EPS = 1e-5
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
shapes = st.tuples(st.integers(1, 3), st.sampled_from([8, 40, 64, 136]), st.integers(12, 150), st.integers(12, 150))


@pytest.fixture(scope="module")
def kernels(build: Build) -> None:
    """The kernels, registered with PyTorch."""
    from plugins.torch_ops import register

    register(build.library("ignn_kernels"))


def random_map(seed: int, shape: tuple[int, ...], dtype: Any, channels_last: bool = False) -> Any:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def fold(features: Any, index: Any, scale: int) -> Any:
    return ops.adapn_gather(features, *ops.key_statistics(features, scale, EPS), index, scale, EPS)


def compare_knn(query: Any, key: Any, index: Any, edge: Any, window: int, scale: int) -> None:
    """Compare with train/ops.py, whose neighbors may differ only where distances are nearly equal."""
    k = index.shape[-1]
    expected_index, expected_edge = ops.windowed_knn(query.float(), key.float(), k, window, scale)
    same = index == expected_index
    assert same.float().mean() > 0.999
    where = same.permute(0, 3, 1, 2).unsqueeze(2).expand_as(edge)
    tolerance = 1e-5 if query.dtype == torch.float32 else 1e-3
    torch.testing.assert_close(edge.float()[where], expected_edge[where], rtol=tolerance, atol=1e-4)


@given(
    seed=st.integers(0, 2**31),
    shape=shapes,
    k=st.integers(1, 16),
    window=st.integers(4, 60),
    scale=st.sampled_from([2, 3]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    channels_last=st.booleans(),
)
@many
def test_windowed_knn(
    kernels: None,
    seed: int,
    shape: tuple[int, ...],
    k: int,
    window: int,
    scale: int,
    dtype: Any,
    channels_last: bool,
) -> None:
    N, E, H, W = shape
    sides = ops.window_sides(window, H // scale // 2, W // scale // 2)
    k = min(k, sides[0] * sides[1])
    query = random_map(seed, shape, dtype, channels_last)
    key = random_map(seed + 1, (N, E, H // scale, W // scale), dtype, channels_last)
    index, edge = torch.ops.ignn.windowed_knn(query.cuda(), key.cuda(), k, window, scale)
    compare_knn(query, key, index.cpu(), edge.cpu(), window, scale)


@given(
    seed=st.integers(0, 2**31),
    shape=shapes,
    scale=st.sampled_from([2, 3]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
    channels_last=st.booleans(),
)
@many
def test_adapn_gather(
    kernels: None, seed: int, shape: tuple[int, ...], scale: int, dtype: Any, channels_last: bool
) -> None:
    N, _, H, W = shape
    features = random_map(seed, shape, dtype, channels_last) * 3 + 1
    index = torch.randint(0, (H // scale // 2) * (W // scale // 2), (N, H // 2, W // 2), dtype=torch.int32)
    statistics = torch.ops.ignn.key_statistics(features.cuda(), scale, EPS)
    for found, exact in zip(statistics, ops.key_statistics(features.float(), scale, EPS), strict=True):
        torch.testing.assert_close(found.cpu(), exact, rtol=1e-4, atol=1e-4)
    output = torch.ops.ignn.adapn_gather(features.cuda(), *statistics, index.cuda(), scale, EPS).cpu()
    expected = fold(features.float(), index, scale)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance * 10)


def test_the_gradient_goes_through_the_kernel(kernels: None) -> None:
    features = random_map(0, (1, 16, 30, 31), torch.float32)
    index = torch.randint(0, 7 * 7, (1, 15, 15), dtype=torch.int32)
    gradients = []
    for device in ("cpu", "cuda"):
        x = features.to(device, copy=True).requires_grad_()
        fold(x, index.to(device), 2).square().sum().backward()
        gradients.append(x.grad.cpu())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(1, 64, 9, 16)}, "Invalid key map"),
        ({"k": 17}, "k must be 1 to 16"),
        ({"scale": 1, "key": torch.zeros(1, 64, 32, 32)}, "scale must be 2 or 3"),
        ({"query": torch.zeros(1, 64, 32, 32).double(), "key": torch.zeros(1, 64, 16, 16).double()}, "float64"),
    ],
)
def test_the_torch_operator_refuses(kernels: None, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "query": torch.zeros(1, 64, 32, 32),
        "key": torch.zeros(1, 64, 16, 16),
        "k": 5,
        "window": 30,
        "scale": 2,
    } | change
    cuda = {name: x.cuda() if isinstance(x, torch.Tensor) else x for name, x in arguments.items()}
    with pytest.raises(ValueError, match=message):
        torch.ops.ignn.windowed_knn(**cuda)


CASES = [
    ((1, 64, 45, 52), 2, "fp32", "linear"),
    ((2, 64, 61, 40), 3, "fp16", "linear"),
    ((1, 64, 64, 47), 2, "fp16", "channels_last"),
    ((1, 24, 40, 80), 3, "fp32", "channels_last"),
]


def write_inputs(folder: Path, shape: tuple[int, ...], scale: int, type_: str, layout: str) -> dict[str, Any]:
    N, E, H, W = shape
    dtype = torch.float16 if type_ == "fp16" else torch.float32
    query = random_map(1, shape, dtype)
    key = random_map(2, (N, E, H // scale, W // scale), dtype)
    index = torch.randint(0, (H // scale // 2) * (W // scale // 2), (N, H // 2, W // 2), dtype=torch.int32)
    for name, x in (("query", query), ("key", key), ("neighbor", index)):
        stored = x.permute(0, 2, 3, 1) if layout == "channels_last" and x.ndim == 4 else x
        (folder / name).write_bytes(stored.contiguous().numpy().tobytes())
    return {"query": query, "key": key, "neighbor": index}


def runner_commands(
    build: Build, plugin_runner: Path, shape: tuple[int, ...], scale: int, type_: str, layout: str
) -> list[list[str]]:
    common = [*map(str, shape), type_, layout]
    program, library = str(plugin_runner), str(build.library("ignn_plugin"))
    return [
        [program, library, "WindowedKnn", *common, "5", "5", str(scale), "query", "key", "index", "edge"],
        [program, library, "KeyStatistics", *common, str(scale), str(EPS), "query", "mean", "std"],
        [program, library, "AdaPNGather", *common, str(scale), str(EPS), "query", "mean", "std", "neighbor", "output"],
    ]


@pytest.mark.parametrize(("shape", "scale", "type_", "layout"), CASES)
def test_the_plugins_enqueue(
    build: Build, plugin_runner: Path, tmp_path: Path, shape: tuple[int, ...], scale: int, type_: str, layout: str
) -> None:
    N, E, H, W = shape
    inputs = write_inputs(tmp_path, shape, scale, type_, layout)
    for command in runner_commands(build, plugin_runner, shape, scale, type_, layout):
        completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr

    dtype = np.float16 if type_ == "fp16" else np.float32
    index = torch.from_numpy(np.fromfile(tmp_path / "index", np.int32).reshape(N, H // 2, W // 2, 5))
    edge = torch.from_numpy(np.fromfile(tmp_path / "edge", dtype).reshape(N, 5, E, H // 2, W // 2))
    compare_knn(inputs["query"], inputs["key"], index, edge, 5, scale)

    output = torch.from_numpy(np.fromfile(tmp_path / "output", dtype))
    if layout == "channels_last":
        output = output.view(N, scale * H, scale * W, E).permute(0, 3, 1, 2)
    output = output.reshape(N, E, scale * H, scale * W)
    expected = fold(inputs["query"].float(), inputs["neighbor"], scale)
    tolerance = 1e-4 if type_ == "fp32" else 2e-3
    torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("check", ["memcheck", "racecheck"])
@pytest.mark.parametrize(("shape", "scale", "type_", "layout"), CASES)
def test_compute_sanitizer(
    build: Build,
    plugin_runner: Path,
    tmp_path: Path,
    check: str,
    shape: tuple[int, ...],
    scale: int,
    type_: str,
    layout: str,
) -> None:
    sanitizer = [tool("compute-sanitizer"), "--tool", check, "--error-exitcode", "9"]
    write_inputs(tmp_path, shape, scale, type_, layout)
    for command in runner_commands(build, plugin_runner, shape, scale, type_, layout):
        completed = subprocess.run([*sanitizer, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stdout + completed.stderr

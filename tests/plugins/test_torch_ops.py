"""The kernels as PyTorch operators, with the emulated GPU's kernels standing in for a GPU's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from host_kernels import HostKernels
from toolchain import Build

torch = pytest.importorskip("torch")
ops = pytest.importorskip("train.ops")
torch_ops = pytest.importorskip("plugins.torch_ops")


@pytest.fixture
def registered(host_kernels: HostKernels, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[..., Any]]:
    """The functions that `register` registers for CUDA, running on CPU tensors."""
    functions: dict[str, Callable[..., Any]] = {}
    monkeypatch.setattr(torch.library, "register_kernel", lambda name, _, function: functions.update({name: function}))
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    torch_ops.register(host_kernels.path)
    return functions


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("scale", [2, 3])
def test_operators(registered: dict[str, Callable[..., Any]], scale: int, channels_last: bool) -> None:
    # A view that starts off the 16-byte boundary, which the kernels could not load.
    query = torch.randn(2, 16, 29, 31)[:, :, 1:, 1:]
    key = torch.randn(2, 16, 28 // scale, 30 // scale)
    if channels_last:
        query, key = (x.to(memory_format=torch.channels_last) for x in (query, key))
    index, edge = registered["ignn::windowed_knn"](query, key, 3, 3, scale)
    expected_index, expected_edge = ops.windowed_knn(query, key, 3, 3, scale)
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(edge, expected_edge, rtol=1e-5, atol=1e-4)

    statistics = registered["ignn::key_statistics"](query, scale, 1e-5)
    for found, exact in zip(statistics, ops.key_statistics(query, scale, 1e-5), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
    output = registered["ignn::adapn_gather"](query, *statistics, index[..., 2], scale, 1e-5)
    expected = ops.adapn_gather(query, *statistics, index[..., 2].contiguous(), scale, 1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(1, 16, 7, 8)}, r"Invalid key map \(1, 16, 7, 8\).*needs \(1, 16, 8, 8\)"),
        ({"key": torch.zeros(1, 16, 8, 8).half()}, "same type and device"),
        ({"k": 17}, r"cannot take maps of shape \(1, 16, 16, 16\): k must be 1 to 16"),
        ({"query": torch.zeros(1, 12, 16, 16), "key": torch.zeros(1, 12, 8, 8)}, "multiple of 8"),
        ({"query": torch.zeros(1, 16, 16, 16).double(), "key": torch.zeros(1, 16, 8, 8).double()}, "float64"),
    ],
)
def test_windowed_knn_refuses(registered: dict[str, Callable[..., Any]], change: dict[str, Any], message: str) -> None:
    arguments = {"query": torch.zeros(1, 16, 16, 16), "key": torch.zeros(1, 16, 8, 8), "k": 2, "window": 4, "scale": 2}
    with pytest.raises(ValueError, match=message):
        registered["ignn::windowed_knn"](**(arguments | change))


@pytest.mark.parametrize("index", [torch.zeros(1, 8, 7, dtype=torch.int32), torch.zeros(1, 8, 8, dtype=torch.int64)])
def test_adapn_gather_refuses(registered: dict[str, Callable[..., Any]], index: Any) -> None:
    statistics = [torch.ones(1, 4, 4, 16)] * 2
    with pytest.raises(ValueError, match=r"Invalid index .* need int32 \(1, 8, 8\)"):
        registered["ignn::adapn_gather"](torch.zeros(1, 16, 16, 16), *statistics, index, 2, 1e-5)


@pytest.mark.parametrize("std", [torch.ones(1, 4, 3, 16), torch.ones(1, 4, 4, 16).half()])
def test_adapn_gather_refuses_statistics(registered: dict[str, Callable[..., Any]], std: Any) -> None:
    index = torch.zeros(1, 8, 8, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"Invalid statistics .* at scale 2 need float32 \(1, 4, 4, 16\)"):
        registered["ignn::adapn_gather"](torch.zeros(1, 16, 16, 16), torch.ones(1, 4, 4, 16), std, index, 2, 1e-5)


def test_the_built_kernels_are_registered_for_cuda(build: Build) -> None:
    torch_ops.register(build.library("ignn_kernels"))
    for operator in (torch.ops.ignn.windowed_knn, torch.ops.ignn.key_statistics, torch.ops.ignn.adapn_gather):
        assert operator.default.has_kernel_for_dispatch_key(torch._C.DispatchKey.CUDA)

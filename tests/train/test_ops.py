"""The three operators against the slow reference, their gradients and their registration."""

from __future__ import annotations

import pytest
import slow_reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.ops import adapn_gather, key_statistics, windowed_knn


def fold(features: torch.Tensor, index: torch.Tensor, scale: int) -> torch.Tensor:
    return adapn_gather(features, *key_statistics(features, scale, 1e-5), index, scale, 1e-5)


shapes = st.tuples(
    st.sampled_from([2, 3]), st.integers(12, 31), st.integers(12, 31), st.integers(1, 2), st.integers(0, 9)
)


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([3, 4, 30]))
def test_windowed_knn_equals_slow_reference(shape: tuple[int, int, int, int, int], window: int) -> None:
    scale, H, W, N, seed = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.rand(N, 8, H, W, generator=generator)
    key = torch.rand(N, 8, H // scale, W // scale, generator=generator)
    k = 4 if min(H, W) // scale // 2 >= 2 else 1
    index, edge = windowed_knn(query, key, k, window, scale)
    expected, expected_edge, distances = slow_reference.windowed_knn(query, key, k, window, scale)
    slow_reference.assert_same_neighbors(index, expected, distances)
    same = (index == expected).all(-1)
    torch.testing.assert_close(edge.permute(0, 3, 4, 1, 2)[same], expected_edge.float().permute(0, 3, 4, 1, 2)[same])


def test_window_moves_with_the_query_in_blocks() -> None:
    """A map wide enough for several blocks of queries, whose windows are clamped on neither or either side."""
    generator = torch.Generator().manual_seed(1)
    query, key = torch.rand(1, 4, 40, 150, generator=generator), torch.rand(1, 4, 20, 75, generator=generator)
    index, _ = windowed_knn(query, key, 5, 6, 2)
    expected, _, distances = slow_reference.windowed_knn(query, key, 5, 6, 2)
    slow_reference.assert_same_neighbors(index, expected, distances)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_key_statistics_are_those_of_the_named_patches(shape: tuple[int, int, int, int, int]) -> None:
    scale, H, W, N, seed = shape
    features = torch.randn(N, 5, H, W, generator=torch.Generator().manual_seed(seed)) * 3 + 50
    mean, std = key_statistics(features, scale, 1e-5)
    expected_mean, expected_std = slow_reference.key_statistics(features.double(), scale, 1e-5)
    torch.testing.assert_close(mean.double(), expected_mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(std.double(), expected_std, atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_adapn_gather_equals_slow_reference(shape: tuple[int, int, int, int, int]) -> None:
    scale, H, W, N, seed = shape
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(N, 5, H, W, generator=generator) * 3 + 50
    n = slow_reference.grid(H // scale) * slow_reference.grid(W // scale)
    index = torch.randint(0, n, (N, H // 2, W // 2), generator=generator, dtype=torch.int32)
    folded = fold(features, index, scale)
    expected = slow_reference.adapn_gather(features.double(), index, scale, 1e-5)
    torch.testing.assert_close(folded.double(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("scale", "H", "W"), [(2, 5, 7), (2, 6, 4), (3, 7, 9)])
def test_adapn_gather_gradient(scale: int, H: int, W: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, H, W, dtype=torch.float64, generator=generator, requires_grad=True)
    n = slow_reference.grid(H // scale) * slow_reference.grid(W // scale)
    index = torch.randint(0, n, (2, H // 2, W // 2), generator=generator, dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x: fold(x, index, scale), features, fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_registration(layout: torch.memory_format) -> None:
    """Schema, fake implementation and autograd registration agree with what the operators do."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    features = torch.randn(2, 3, 12, 17).to(memory_format=layout).requires_grad_()
    index = torch.zeros(2, 6, 8, dtype=torch.int32)
    torch.library.opcheck(torch.ops.ignn.key_statistics.default, (features, 2, 1e-5), test_utils=checks)
    statistics = [x.detach().requires_grad_() for x in key_statistics(features, 2, 1e-5)]
    given = (features, *statistics, index, 2, 1e-5)
    torch.library.opcheck(torch.ops.ignn.adapn_gather.default, given, test_utils=checks)
    maps = (torch.rand(2, 8, 12, 17), torch.rand(2, 8, 6, 8))
    torch.library.opcheck(torch.ops.ignn.windowed_knn.default, (*maps, 5, 30, 2), test_utils=checks)


def test_half_types_accumulate_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 4, 12, 12, generator=generator).bfloat16()
    index = torch.randint(0, 9, (1, 6, 6), generator=generator, dtype=torch.int32)
    folded = fold(features, index, 2)
    assert folded.dtype == torch.bfloat16
    assert {x.dtype for x in key_statistics(features, 2, 1e-5)} == {torch.float32}
    torch.testing.assert_close(folded, fold(features.float(), index, 2).bfloat16())


def test_maps_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Invalid key map \(1, 8, 5, 6\).*needs \(1, 8, 6, 6\)"):
        windowed_knn(torch.rand(1, 8, 12, 12), torch.rand(1, 8, 5, 6), 5, 30, 2)
    with pytest.raises(ValueError, match=r"Invalid k \(5\)\. The window holds 2 x 2"):
        windowed_knn(torch.rand(1, 8, 8, 8), torch.rand(1, 8, 4, 4), 5, 30, 2)
    with pytest.raises(ValueError, match=r"Invalid index shape \(1, 3, 3\).*query grid of \(1, 6, 6\)"):
        fold(torch.rand(1, 4, 12, 12), torch.zeros(1, 3, 3, dtype=torch.int32), 2)
    features, statistics = torch.rand(1, 4, 12, 12), torch.rand(1, 2, 2, 4)
    with pytest.raises(ValueError, match=r"Invalid statistics .*have those of key_statistics, \(1, 3, 3, 4\)"):
        adapn_gather(features, statistics, statistics, torch.zeros(1, 6, 6, dtype=torch.int32), 2, 1e-5)

"""The kernels' own source, run thread by thread on the host, against the definition and against train/ops.py."""

from __future__ import annotations

import numpy as np
import pytest
from graph_reference import adapn_gather, edge_labels, key_statistics, nearest, squared_distances
from host_kernels import HostKernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.kernel_library import AdaPNGatherSizes, FeaturesSizes, KeyStatisticsSizes, Layout, WindowedKnnSizes

LAYOUTS: list[Layout] = ["linear", "channels_last"]
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def maps(seed: int, shape: tuple[int, int, int, int], scale: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    N, E, H, W = shape
    query, key = random.standard_normal(shape), random.standard_normal((N, E, H // scale, W // scale))
    return query.astype(dtype), key.astype(dtype)


def check_knn(
    kernels: HostKernels, query: np.ndarray, key: np.ndarray, k: int, window: int, scale: int, layout: Layout
) -> None:
    index, edge = kernels.windowed_knn(query, key, k=k, window=window, scale=scale, layout=layout)
    for n in range(len(query)):
        distances = squared_distances(query[n], key[n], window, scale)
        chosen = np.take_along_axis(distances, index[n], -1)
        best = np.take_along_axis(distances, nearest(distances, k), -1)
        # Rounding may swap neighbors of nearly equal distance, and only those.
        np.testing.assert_allclose(chosen, best, rtol=1e-5, atol=1e-4)
        assert all(len(set(row)) == k for row in index[n].reshape(-1, k).tolist())
        tolerance = 1e-5 if query.dtype == np.float32 else 1e-3
        np.testing.assert_allclose(edge[n], edge_labels(query[n], key[n], index[n]), rtol=tolerance, atol=1e-4)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.sampled_from([8, 24, 64, 72]), st.integers(12, 33), st.integers(12, 41)),
    k=st.integers(1, 5),
    window=st.integers(3, 40),
    scale=st.sampled_from([2, 3]),
    dtype=st.sampled_from([np.float32, np.float16]),
    layout=st.sampled_from(LAYOUTS),
    shared_memory=st.sampled_from([100, 228]),  # 32 and 64 channels at once
)
@few
def test_windowed_knn(
    host_kernels: HostKernels,
    seed: int,
    shape: tuple[int, int, int, int],
    k: int,
    window: int,
    scale: int,
    dtype: type,
    layout: Layout,
    shared_memory: int,
) -> None:
    k = min(k, (shape[2] // scale // 2) * (shape[3] // scale // 2))
    k = min(k, min(window, shape[2] // scale // 2, shape[3] // scale // 2) ** 2)
    host_kernels.set_shared_memory(shared_memory)
    check_knn(host_kernels, *maps(seed, shape, scale, dtype), k, window, scale, layout)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("shape", "k", "window", "scale"),
    [
        ((1, 8, 9, 120), 3, 60, 2),  # the union of the windows is wider than one pass of keys
        ((1, 8, 90, 8), 3, 60, 2),
        ((1, 16, 34, 33), 16, 4, 2),  # as many neighbors as the kernel takes, and as the window holds
        ((1, 8, 4, 4), 1, 30, 2),  # one key
        ((1, 8, 6, 7), 1, 1, 3),
        ((1, 40, 43, 26), 6, 5, 3),
    ],
)
def test_windowed_knn_extremes(
    host_kernels: HostKernels, shape: tuple[int, int, int, int], k: int, window: int, scale: int, dtype: type
) -> None:
    host_kernels.set_shared_memory(228)
    check_knn(host_kernels, *maps(0, shape, scale, dtype), k, window, scale, "channels_last")


@pytest.mark.parametrize(
    ("shape", "k", "window", "scale"),
    [((1, 64, 25, 46), 5, 30, 2), ((2, 24, 22, 31), 3, 4, 3), ((1, 16, 34, 33), 16, 4, 2), ((1, 8, 9, 120), 3, 60, 2)],
)
def test_floats_by_three_products_of_tf32(
    tf32_kernels: HostKernels, shape: tuple[int, int, int, int], k: int, window: int, scale: int
) -> None:
    """Two of the three products, or plain TF32, choose other neighbors here."""
    query, key = maps(4, shape, scale, np.float32)
    index, _ = tf32_kernels.windowed_knn(query, key, k=k, window=window, scale=scale, layout="channels_last")
    for n in range(len(query)):
        np.testing.assert_array_equal(index[n], nearest(squared_distances(query[n], key[n], window, scale), k))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("window", [4, 30])
def test_equal_distances_go_to_the_lower_index(host_kernels: HostKernels, dtype: type, window: int) -> None:
    # Whole numbers make the arithmetic exact, and few of them make ties common.
    random = np.random.default_rng(1)
    query = random.integers(0, 2, (1, 8, 40, 46)).astype(dtype)
    key = random.integers(0, 2, (1, 8, 20, 23)).astype(dtype)
    query[..., :12], key[..., :6] = 0, 0
    index, edge = host_kernels.windowed_knn(query, key, k=5, window=window, scale=2, layout="linear")
    expected = nearest(squared_distances(query[0], key[0], window, 2), 5)
    np.testing.assert_array_equal(index[0], expected)
    np.testing.assert_array_equal(edge[0], edge_labels(query[0], key[0], expected))


def test_not_a_number_still_names_keys(host_kernels: HostKernels) -> None:
    query, key = maps(0, (1, 8, 20, 20), 2, np.float32)
    query[:, :, 5] = np.nan
    key[:, :, 2] = np.inf
    index, _ = host_kernels.windowed_knn(query, key, k=3, window=3, scale=2, layout="linear")
    assert index.min() >= 0
    assert index.max() < 5 * 5


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 8, 20, 64, 72]), st.integers(6, 40), st.integers(6, 40)),
    scale=st.sampled_from([2, 3]),
    dtype=st.sampled_from([np.float32, np.float16]),
    layout=st.sampled_from(LAYOUTS),
)
@few
def test_adapn_gather(
    host_kernels: HostKernels,
    seed: int,
    shape: tuple[int, int, int, int],
    scale: int,
    dtype: type,
    layout: Layout,
) -> None:
    N, C, H, W = shape
    layout = layout if C % 8 == 0 else "linear"
    random = np.random.default_rng(seed)
    features = (random.standard_normal(shape) * 4 + random.standard_normal((N, C, 1, 1)) * 20).astype(dtype)
    index = random.integers(0, (H // scale // 2) * (W // scale // 2), (N, H // 2, W // 2)).astype(np.int32)
    mean, std = host_kernels.key_statistics(features, scale=scale, eps=1e-5, layout=layout)
    output = host_kernels.adapn_gather(features, index, scale=scale, eps=1e-5, layout=layout)
    for n in range(N):
        for found, exact in zip((mean[n], std[n]), key_statistics(features[n], scale, 1e-5), strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-4)
        expected = adapn_gather(features[n], index[n], scale, 1e-5)
        tolerance = 1e-4 if dtype == np.float32 else 1e-3
        np.testing.assert_allclose(output[n], expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_constant_features_stay_constant(host_kernels: HostKernels) -> None:
    """The variance of equal numbers is zero, however large they are."""
    features = np.full((1, 8, 21, 21), 1000.1, np.float32)
    index = np.full((1, 10, 10), 0, np.int32)  # away from the zero padding
    output = host_kernels.adapn_gather(features, index, scale=2, eps=1e-5, layout="channels_last")
    np.testing.assert_allclose(output, 1000.1, rtol=1e-6)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("size", [(37, 52), (61, 30)])
def test_kernels_agree_with_the_torch_operators(host_kernels: HostKernels, scale: int, size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("train.ops")
    query, key = maps(3, (2, 64, *size), scale, np.float32)
    index, edge = host_kernels.windowed_knn(query, key, k=3, window=4, scale=scale, layout="linear")
    expected_index, expected_edge = ops.windowed_knn(torch.from_numpy(query), torch.from_numpy(key), 3, 4, scale)
    np.testing.assert_array_equal(index, expected_index.numpy())
    np.testing.assert_allclose(edge, expected_edge.numpy(), rtol=1e-5, atol=1e-4)

    neighbor = np.ascontiguousarray(index[..., 1])
    output = host_kernels.adapn_gather(query, neighbor, scale=scale, eps=1e-5, layout="channels_last")
    statistics = ops.key_statistics(torch.from_numpy(query), scale, 1e-5)
    expected = ops.adapn_gather(torch.from_numpy(query), *statistics, torch.from_numpy(neighbor), scale, 1e-5)
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k must be 1 to 16"),
        ({"k": 17}, "k must be 1 to 16"),
        ({"window": 0}, "window must be at least 1"),
        ({"window": 2}, "k must not exceed the key patches in the window"),
        ({"scale": 4}, "scale must be 2 or 3"),
        ({"channels": 12}, "multiple of 8"),
        ({"height": 3}, "at least 2 * scale"),
        ({"type": 2}, "float32 or float16"),
        ({"batch": 0}, "batch must be 1 to 65535"),
        ({"batch": 65536}, "batch must be 1 to 65535"),
        ({"height": 262141}, "query map must be at most 262140 pixels high"),
        ({"width": 67108861, "height": 32}, "query map must have at most 2147483520 pixels"),
        ({"batch": 60000, "height": 2048, "width": 2048}, "key maps of a batch must have at most 2147483520 patches"),
    ],
)
def test_windowed_knn_refuses(host_kernels: HostKernels, change: dict[str, int], message: str) -> None:
    sizes = WindowedKnnSizes.of((1, 64, 32, 32), "float32", "linear", k=5, window=30, scale=2)
    assert host_kernels.library.refusal(sizes) is None
    for name, value in change.items():
        setattr(sizes, name, value)
    refusal = host_kernels.library.refusal(sizes)
    assert refusal is not None
    assert message in refusal
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        host_kernels.library.launch(sizes, 0, 0, 0, 0, workspace=0, stream=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 1}, "scale must be 2 or 3"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"channels": 12, "layout": 1}, "multiple of 8"),
        ({"width": 3}, "at least 2 * scale"),
        ({"type": -1}, "float32 or float16"),
        ({"batch": 0}, "batch must be 1 to 65535"),
        ({"batch": 65536}, "batch must be 1 to 65535"),
        ({"height": 262141}, "features must be at most 262140 pixels high"),
        ({"width": 67108861, "height": 32}, "features must have at most 2147483520 pixels"),
    ],
)
@pytest.mark.parametrize(("kind", "tensors"), [(KeyStatisticsSizes, 3), (AdaPNGatherSizes, 5)])
def test_what_takes_features_refuses(
    host_kernels: HostKernels, kind: type[FeaturesSizes], tensors: int, change: dict[str, float], message: str
) -> None:
    sizes = kind.of((1, 64, 32, 32), "float32", "linear", scale=2, eps=1e-5)
    assert host_kernels.library.refusal(sizes) is None
    for name, value in change.items():
        setattr(sizes, name, value)
    refusal = host_kernels.library.refusal(sizes)
    assert refusal is not None
    assert message in refusal
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        host_kernels.library.launch(sizes, *[0] * tensors, workspace=0, stream=0)

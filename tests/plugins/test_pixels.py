"""Bytes to the network's values and back: the kernels' own source on the host, and the kernels on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import HostKernels
from hypothesis import given, settings
from hypothesis import strategies as st
from toolchain import Build

from runtime.backends.pixels import PixelKernels
from runtime.errors import IgnnError
from runtime.pictures.picture import quantize

sizes = st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 40))
units = st.sampled_from([1.0, 255.0])
few = settings(max_examples=20, deadline=None)


def pixels_of(seed: int, size: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def as_map(pixels: np.ndarray, unit: float) -> np.ndarray:
    """As the resolver makes a network's input."""
    return np.ascontiguousarray(pixels.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(unit))


def values_of(seed: int, size: tuple[int, int, int], unit: float) -> np.ndarray:
    """Values below, within and above 0..255, a third of them halves, where rounding is decided."""
    random = np.random.default_rng(seed)
    n, height, width = size
    values = random.uniform(-30, 290, (n, 3, height, width))
    halves = random.random(values.shape) < 0.3
    values[halves] = np.floor(values[halves]) + 0.5
    return (values / unit).astype(np.float32)


def as_pixels(values: np.ndarray, unit: float) -> np.ndarray:
    """As the resolver makes a picture of a network's output."""
    return quantize(values.transpose(0, 2, 3, 1) * np.float32(unit), np.dtype(np.uint8), grey=False)


@given(seed=st.integers(0, 2**31), size=sizes, unit=units)
@few
def test_as_numpy_does(host_kernels: HostKernels, seed: int, size: tuple[int, int, int], unit: float) -> None:
    kernels = PixelKernels(host_kernels.path, unit=unit)
    pixels = pixels_of(seed, size)
    values = np.full((size[0], 3, *size[1:]), np.nan, np.float32)
    kernels.to_map(pixels.ctypes.data, values.ctypes.data, size, 0)
    np.testing.assert_array_equal(values, as_map(pixels, unit))

    values = values_of(seed, size, unit)
    result = np.full(pixels.size + 2, 77, np.uint8)
    kernels.to_pixels(values.ctypes.data, result.ctypes.data, size, 0)
    np.testing.assert_array_equal(result[:-2].reshape(pixels.shape), as_pixels(values, unit))
    assert result[-2:].tolist() == [0, 77]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_reported(host_kernels: HostKernels, bad: float) -> None:
    values = np.zeros((2, 3, 20, 30), np.float32)
    values[1, 2, 19, 29] = bad
    result = np.full(values.size + 1, 77, np.uint8)
    PixelKernels(host_kernels.path, unit=1.0).to_pixels(values.ctypes.data, result.ctypes.data, (2, 20, 30), 0)
    assert result[-1] == 1


def test_the_error_of_a_launch(host_kernels: HostKernels) -> None:
    with pytest.raises(IgnnError, match=r"could not be launched: CUDA error 1\. .*cmake --build build"):
        PixelKernels(host_kernels.path, unit=1.0).to_map(0, 0, (0, 20, 30), 0)


@pytest.mark.gpu
@pytest.mark.parametrize("unit", [1.0, 255.0])
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 37, 53), (1, 1080, 1920)])
def test_on_a_gpu(build: Build, size: tuple[int, int, int], unit: float) -> None:
    torch = pytest.importorskip("torch")
    kernels = PixelKernels(build.library("ignn_plugin"), unit=unit)
    stream = torch.cuda.current_stream().cuda_stream
    pixels, values = pixels_of(0, size), values_of(0, size, unit)
    there = torch.from_numpy(pixels).cuda()
    made = torch.empty(values.shape, device="cuda")
    kernels.to_map(there.data_ptr(), made.data_ptr(), size, stream)
    np.testing.assert_array_equal(made.cpu().numpy(), as_map(pixels, unit))

    for bad in (0, 1):
        if bad:
            values[-1, -1, -1, -1] = np.nan
        there, result = torch.from_numpy(values).cuda(), torch.empty(pixels.size + 1, dtype=torch.uint8, device="cuda")
        kernels.to_pixels(there.data_ptr(), result.data_ptr(), size, stream)
        assert int(result[-1]) == bad
        if not bad:
            np.testing.assert_array_equal(result[:-1].cpu().numpy().reshape(pixels.shape), as_pixels(values, unit))

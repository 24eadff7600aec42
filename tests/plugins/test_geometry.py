from __future__ import annotations

import ctypes

import numpy as np
from graph_reference import patch_grid, window
from hypothesis import given
from hypothesis import strategies as st

sizes = st.integers(2, 400)
scales = st.sampled_from([2, 3])


@given(n=sizes)
def test_patch_grid_fits_the_padded_map(geometry: ctypes.CDLL, n: int) -> None:
    count = geometry.patch_count(n)
    assert 2 * (count - 1) + 3 == n + (n + 1) % 2  # a row of zeros after an even number of pixels
    assert len(patch_grid(np.zeros((1, n, 2)))) == count


@given(n=st.integers(1, 100), other=st.integers(1, 100), width=st.integers(1, 120), i=st.integers(0, 200), scale=scales)
def test_window_is_the_definition(geometry: ctypes.CDLL, n: int, other: int, width: int, i: int, scale: int) -> None:
    side = geometry.window_side(width, n, other)
    first = geometry.window_origin(i, scale, side, n)
    assert range(first, first + side) == window(i, n, other, width, scale)
    assert 0 <= first <= n - side


@given(n=sizes, scale=scales)
def test_covers_are_the_patches_over_a_pixel(geometry: ctypes.CDLL, n: int, scale: int) -> None:
    m = geometry.patch_count(n)
    for y in range(n):
        covering = [i for i in range(m) if 2 * i <= y < 2 * i + 3]
        assert list(range(geometry.first_cover(y, m), geometry.last_cover(y, m) + 1)) == covering
        fine = [i for i in range(m) if 2 * scale * i <= scale * y < 2 * scale * i + 3 * scale]
        assert fine == covering  # the same for the s x s output pixels of y


@given(i=st.integers(0, 100), u=st.integers(0, 100), scale=scales)
def test_mapped_pixels_are_the_key_patch(geometry: ctypes.CDLL, i: int, u: int, scale: int) -> None:
    output = range(2 * scale * i, 2 * scale * i + 3 * scale)
    mapped = [y + geometry.mapped_shift(i, u, scale) for y in output]
    assert mapped == list(range(2 * scale * u, 2 * scale * u + 3 * scale))


@given(n=sizes, scale=scales)
def test_cropped_size(geometry: ctypes.CDLL, n: int, scale: int) -> None:
    cropped = geometry.cropped_size(n, scale)
    assert cropped % scale == 0
    assert 0 <= n - cropped < scale

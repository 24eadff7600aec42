"""The bicubic reduction against MATLAB's definition, written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.resize import downsample_bicubic


def imresize_row(row: np.ndarray, scale: int) -> np.ndarray:
    """Reduce a row as MATLAB's imresize documents it: kernel stretched by the scale, symmetric border, sum of one."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    mirrored = np.concatenate([row, row[::-1]])
    out = []
    for i in range(len(row) // scale):
        center = (i + 0.5) * scale - 0.5
        taps = range(int(np.floor(center)) - 2 * scale - 1, int(np.ceil(center)) + 2 * scale + 2)
        weights = np.array([cubic((t - center) / scale) for t in taps])
        out.append(np.dot(weights / weights.sum(), [mirrored[t % len(mirrored)] for t in taps]))
    return np.array(out)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(4, 5), (24, 36), (25, 37)])
def test_equals_matlab(scale: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).uniform(0, 255, size)
    cropped = image[: size[0] // scale * scale, : size[1] // scale * scale]
    rows = np.apply_along_axis(imresize_row, 0, cropped, scale)
    expected = np.apply_along_axis(imresize_row, 1, rows, scale)
    ours = downsample_bicubic(torch.from_numpy(image)[None, None], scale)[0, 0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-9)

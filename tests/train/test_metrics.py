"""Metrics against scikit-image and known figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.metrics import luma, psnr, ssim, to_gray, to_uint8


def noisy_pair(height=40, width=33, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(size=(height, width, channels)), axis=1) * 8 + 128
    return to_uint8(smooth), to_uint8(smooth + rng.normal(scale=9, size=smooth.shape))


@settings(max_examples=20, deadline=None)
@given(st.integers(21, 50), st.integers(21, 50), st.sampled_from([1, 3]), st.integers(0, 4))
def test_agrees_with_scikit_image(height, width, channels, border):
    metrics = pytest.importorskip("skimage.metrics")
    sr, hr = noisy_pair(height, width, channels, seed=height * width)
    y_sr, y_hr = (luma(image)[border : height - border, border : width - border] for image in (sr, hr))
    theirs = metrics.structural_similarity(
        y_sr, y_hr, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    # scikit-image extends the border and then leaves out the same five pixels: one definition.
    assert ssim(sr, hr, border) == pytest.approx(theirs, abs=1e-9)
    assert psnr(sr, hr, border) == pytest.approx(metrics.peak_signal_noise_ratio(y_hr, y_sr, data_range=255))


def test_luma_is_bt601():
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], dtype=np.uint8)
    np.testing.assert_allclose(luma(corners), [[16, 235, 81.481]])


def test_equal_images():
    sr, _ = noisy_pair()
    assert psnr(sr, sr, 2) == float("inf")
    assert ssim(sr, sr, 2) == pytest.approx(1)


def test_gray_comes_back_unchanged():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(to_gray(np.repeat(gray, 3, axis=2)), gray)


def test_rounds_halves_up_and_clamps():
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 0.5, 1.5, 254.5, 300.0])), [0, 1, 2, 255, 255])


def test_errors_name_the_sizes():
    sr, hr = noisy_pair()
    with pytest.raises(ValueError, match="Crop HR"):
        psnr(sr[:-1], hr, 2)
    with pytest.raises(ValueError, match="33 x 40 pixels"):
        ssim(sr, hr, 12)

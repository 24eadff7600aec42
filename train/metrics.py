"""PSNR and SSIM by the protocol of super-resolution papers: on luma, 8 bits, borders cropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InvalidImageError
from runtime.pictures.psnr import psnr_db

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601: R, G, B in 0..255 to Y in 16..235."""
_SSIM_SIDE, _SSIM_SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round an image of nominally 0..255 to 8 bits, halves up as MATLAB does."""
    return np.floor(np.clip(image, 0, 255) + 0.5).astype(np.uint8)


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what is measured of an HWC image in [0, 255], not rounded.

    That is Y of BT.601 YCbCr, [16, 235], of RGB; of one channel it is that channel as it stands, [0, 255].
    """
    return image[..., 0].astype(np.float64) if image.shape[2] == 1 else 16 + image.astype(np.float64) @ LUMA


def to_gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return one channel, (H, W, 1), [0, 255]: the luma at full range, so that gray RGB comes back unchanged."""
    return to_uint8((luma(rgb) - 16) * (255 / 219))[..., None]


def psnr(sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
    """Return the peak signal-to-noise ratio on Y in dB; infinite for equal images.

    Args:
        sr, hr: HWC uint8 of one size, RGB or one channel.
        border: pixels to leave out at each side; the scale, by the protocol.

    Raises:
        InvalidImageError: the sizes differ or nothing is left within the border.
    """
    return psnr_db(*_inner_luma(sr, hr, border, least=1))


def ssim(sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int) -> float:
    """Return the mean structural similarity on Y (Wang et al. 2004): 11 x 11 Gaussian, sigma 1.5, valid region.

    Args:
        sr, hr: HWC uint8 of one size, RGB or one channel.
        border: pixels to leave out at each side; the scale, by the protocol.

    Raises:
        InvalidImageError: the sizes differ or less than 11 x 11 pixels are left within the border.
    """
    x, y = _inner_luma(sr, hr, border, least=_SSIM_SIDE)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(numerator / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))))


def _inner_luma(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if sr.shape != hr.shape:
        raise InvalidImageError(
            f"Images of different shape ({sr.shape} and {hr.shape}). Crop HR to a multiple of the scale."
        )
    height, width = (size - 2 * border for size in hr.shape[:2])
    if min(height, width) < least:
        raise InvalidImageError(
            f"Image too small ({hr.shape[1]} x {hr.shape[0]} pixels). Without {border} at each border "
            f"at least {least} x {least} must be left."
        )
    inner = np.s_[border : border + height, border : border + width]
    return luma(sr[inner]), luma(hr[inner])


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Gaussian mean of each 11 x 11 window that lies inside the image."""
    offset = np.arange(_SSIM_SIDE) - _SSIM_SIDE // 2
    kernel = np.exp(-(offset**2) / (2 * _SSIM_SIGMA**2))
    kernel /= kernel.sum()
    rows = image.shape[0] - _SSIM_SIDE + 1
    image = sum(weight * image[tap : tap + rows] for tap, weight in enumerate(kernel))
    columns = image.shape[1] - _SSIM_SIDE + 1
    return sum(weight * image[:, tap : tap + columns] for tap, weight in enumerate(kernel))

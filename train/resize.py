"""MATLAB-exact bicubic resizing by integer factors, as super-resolution papers make their LR images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


def _cubic(x: float) -> float:
    """Return Keys' cubic convolution kernel, a = -0.5."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


@lru_cache
def _downsample_taps(scale: int) -> tuple[int, tuple[float, ...]]:
    """Return (pixels the kernel reaches before output pixel 0's block, normalised weights)."""
    center = scale * 0.5 - 0.5
    first = next(i for i in range(-2 * scale, 1) if _cubic((i - center) / scale) != 0)
    last = next(i for i in range(3 * scale, 0, -1) if _cubic((i - center) / scale) != 0)
    weights = [_cubic((i - center) / scale) for i in range(first, last + 1)]
    total = sum(weights)
    return -first, tuple(w / total for w in weights)


def _mirror_index(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Return the source index of each pixel of a symmetrically padded row, for any size from 1 up."""
    position = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.where(position < size, position, 2 * size - 1 - position)


def downsample_bicubic(image: Tensor, scale: int) -> Tensor:
    """Reduce an image as MATLAB's `imresize(image, 1/scale)` does: antialiased bicubic, symmetric border.

    Args:
        image: (N, C, H, W), any float type and value range; H and W at least `scale`. Rows and columns past a multiple
            of `scale` are cut off first, as the protocol of the field has it.
        scale: integer factor, at least 2.

    Returns:
        (N, C, H // scale, W // scale), not rounded and not clamped.
    """
    before, weights = _downsample_taps(scale)
    N, C, H, W = image.shape
    height, width = H // scale, W // scale
    after = len(weights) - scale - before
    # By fills: a copy from the host would break the capture of a CUDA graph.
    kernel = torch.stack([torch.full((), w, dtype=image.dtype, device=image.device) for w in weights])
    # MATLAB reduces rows first; in floating point the order is visible in the last digits only.
    rows = _mirror_index(height * scale, before, after, image.device)
    x = image.index_select(2, rows).reshape(N * C, 1, rows.shape[0], W)
    x = F.conv2d(x, kernel.view(1, 1, -1, 1), stride=(scale, 1))
    columns = _mirror_index(width * scale, before, after, image.device)
    x = F.conv2d(x.index_select(3, columns), kernel.view(1, 1, 1, -1), stride=(1, scale))
    return x.reshape(N, C, height, width)


def downsample_uint8(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Reduce 8-bit pixels as MATLAB's `imresize(image, 1/scale)` does: it rounds after rows and again after columns.

    Args:
        image: (H, W, C), at least `scale` pixels high and wide; rows and columns past a multiple of it are cut off.
        scale: integer factor, at least 2.

    Returns:
        (H // scale, W // scale, C).
    """
    before, weights = _downsample_taps(scale)
    image = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
    return _resize_uint8(image, np.array([weights]), before, len(weights) - scale - before, scale)


def upsample_uint8(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Enlarge 8-bit pixels as MATLAB's `imresize(image, scale)` does: the bicubic rows of super-resolution tables.

    Args:
        image: (H, W, C).
        scale: integer factor, at least 2.

    Returns:
        (scale * H, scale * W, C).
    """
    # Each input pixel makes `scale` output pixels, each from the five input pixels around it.
    centers = [(phase + 0.5) / scale - 0.5 for phase in range(scale)]
    return _resize_uint8(image, np.array([[_cubic(tap - c) for tap in range(-2, 3)] for c in centers]), 2, 2, 1)


def _resize_uint8(
    image: NDArray[np.uint8], kernels: NDArray[np.float64], before: int, after: int, stride: int
) -> NDArray[np.uint8]:
    """Filter rows, then columns, with one kernel per output phase; round halves up after each."""
    for axis in (0, 1):
        index = _mirror_index(image.shape[axis], before, after, torch.device("cpu")).numpy()
        taps = np.lib.stride_tricks.sliding_window_view(image.take(index, axis), kernels.shape[1], axis)
        taps = taps[::stride] if axis == 0 else taps[:, ::stride]
        phases = np.stack([taps @ kernel for kernel in kernels], axis=axis + 1)
        image = np.floor(np.clip(phases, 0, 255) + 0.5).astype(np.uint8)
        image = image.reshape(*image.shape[:axis], -1, *image.shape[axis + 2 :])
    return image

"""PSNR of two arrays: the formula alone. Which pixels and channels count is the caller's protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def psnr_db(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the peak signal-to-noise ratio of two arrays of one shape, in dB; infinite for equal arrays.

    Args:
        a, b: values of any number type; the peak is 255, whatever the arrays hold.
    """
    error = float(np.mean(np.square(a.astype(np.float64) - b)))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))

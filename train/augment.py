"""Variations of training patches beyond flips and turns that keep LR the reduction of HR.

Reduction is linear and the same for all colors, so colors may change places, contrast may change and two photographs
may be blended, if both sizes of a patch are treated alike. A few hundred photographs then last longer (Yoo et al.
2020, "Rethinking data augmentation for image super-resolution", compares such variations).
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import torch
from torch import Tensor

_SHARE = 0.3
"""Share of the patches that each of the three variations is applied to."""
_CONTRAST = 0.7, 1.6
"""Smallest and largest factor on a patch's contrast; evenly spread logarithms between."""
_BLEND = 0.5
"""Largest share that another patch of the batch gets."""
_ORDERS = np.array(list(permutations(range(3))), dtype=np.float32)


def draw_variations(step: int, seed: int, size: int, first: int = 0) -> Tensor:
    """Draw what `vary` does to the patches of a batch; it depends on (seed, step) alone.

    Args:
        step, seed, size, first: as for `train.data.PatchSource.batch`.

    Returns:
        (size, 5) float32: factor on the contrast, share of the other patch, order of the colors.
    """
    draws = np.random.default_rng((seed, step, 1)).random((first + size, 6))[first:]
    low, high = np.log(_CONTRAST)
    applied = draws[:, :3] < _SHARE
    contrast = np.where(applied[:, 0], np.exp(low + (high - low) * draws[:, 3]), 1)
    share = np.where(applied[:, 1], _BLEND * draws[:, 4], 0)
    order = _ORDERS[np.where(applied[:, 2], (6 * draws[:, 5]).astype(int), 0)]
    return torch.from_numpy(np.column_stack([contrast, share, order]).astype(np.float32))


def vary(lr: Tensor, hr: Tensor, variations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patches varied.

    Args:
        lr, hr: float32 (N, 3, h, w) and (N, 3, s*h, s*w).
        variations: what `draw_variations` returned, on their device.

    Patches are blended with others of this call, so several processes do not make what one would.

    Returns:
        The same shapes; values may leave [0, 255].
    """
    contrast, share = (variations[:, i, None, None, None] for i in range(2))
    order = variations[:, 2:, None, None].long()
    mean = lr.mean(dim=(1, 2, 3), keepdim=True)  # one number for both sizes
    varied = []
    for x in (lr, hr):
        x = mean + contrast * (x - mean)
        x = x.lerp(x.flip(0), share)  # patch i is blended with patch N - 1 - i
        varied.append(x.gather(1, order.expand(x.shape)))
    return varied[0], varied[1]

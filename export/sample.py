"""Pictures to compare runtimes on: shading, edges and noise."""

from __future__ import annotations

import numpy as np


def sample(N: int, H: int, W: int, seed: int) -> np.ndarray:
    """Return images with smooth shading, edges and some noise: (N, 3, H, W) float32, whole numbers 0..255."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W].astype(np.float32)
    phase = generator.uniform(0, 6, (N, 3, 1, 1)).astype(np.float32)
    slope = generator.uniform(0.05, 0.4, (N, 3, 1, 1)).astype(np.float32)
    shading = 120 + 60 * np.sin(slope * x + phase) + 40 * np.sign(np.sin(0.3 * (x + 2 * y) + phase))
    return np.clip(np.round(shading + generator.normal(0, 4, (N, 3, H, W))), 0, 255).astype(np.float32)

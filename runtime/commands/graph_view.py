"""What the graph finds around a point of a picture, for the page of `ignn ui`: by `ignn neighbors`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..clone import find_clone
from ..errors import IgnnError
from ..models import bundled_models

AROUND = 216
"""Pixels to each side of the point that are looked at: more than the halo of any bundled network."""

_ALIGNED = 12
"""A multiple of all scales' tile multiples: patches of a crop fall on those of the picture."""


def can_show() -> bool:
    """Return whether this is a clone, whose commands know PyTorch's network, and PyTorch is installed."""
    return find_clone() is not None and importlib.util.find_spec("torch") is not None


def draw_neighbors(rgb: NDArray[Any], x: int, y: int, model: str, scale: int, folder: Path) -> Path:
    """Draw the patches that a network finds for a point.

    Args:
        rgb: (H, W, 3) uint8, the picture as the network takes it.
        x, y: column and row of the point.
        model: name of a model; one without a graph, or not bundled, is taken for `ignn-s` of its scale.
        scale: its scale, 2, 3 or 4.
        folder: where the drawing goes, into a folder of its own.

    Returns:
        The path of a PNG.

    Raises:
        IgnnError: `ignn neighbors` failed; the message is its own.
    """
    clone = find_clone()
    assert clone is not None
    left, top = (max(0, place - AROUND) // _ALIGNED * _ALIGNED for place in (x, y))
    place = Path(tempfile.mkdtemp(dir=folder))
    crop, sheet = place / "crop.png", place / "neighbors.png"
    Image.fromarray(np.ascontiguousarray(rgb[top : y + AROUND, left : x + AROUND])).save(crop)
    with_graph = {bundled.name for bundled in bundled_models() if bundled.kind != "plain"}
    name = model if model in with_graph else f"ignn-s-x{scale}"
    weights = clone / "train" / "weights" / f"{name}.pt"
    command = [sys.executable, "-m", "runtime.cli", "neighbors", str(crop), "--at", f"{x - left},{y - top}"]
    done = subprocess.run(
        [*command, "-o", str(sheet), "--model", str(weights)], cwd=clone, capture_output=True, text=True, check=False
    )
    crop.unlink()
    if done.returncode:
        raise IgnnError(f"The neighbors cannot be drawn: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return sheet

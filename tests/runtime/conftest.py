"""Small networks and pictures to run through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_networks import make_network, write_model

from runtime import SuperResolver

ASSETS = Path(__file__).resolve().parents[2] / "assets"

ModelFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> ModelFactory:
    """Writes a small network; arguments are those of `make_network`, then metadata."""

    def make(scale: int = 2, network: dict[str, object] | None = None, **metadata: str | None) -> Path:
        graph_scale = 3 if scale == 3 else 2
        entries: dict[str, str | None] = {
            "scale": str(scale),
            "graph_scale": str(graph_scale),
            "tile_multiple": str(2 * graph_scale),
        }
        path = tmp_path_factory.mktemp("model") / f"x{scale}.onnx"
        return write_model(path, make_network(scale, grid=2 * graph_scale, **(network or {})), **(entries | metadata))

    return make


@pytest.fixture(scope="session")
def x2_model(model_file: ModelFactory) -> Path:
    return model_file(2)


@pytest.fixture(scope="session")
def resolver(x2_model: Path) -> SuperResolver:
    return SuperResolver(x2_model)


@pytest.fixture
def sample() -> Path:
    """The photograph that the repository ships."""
    return ASSETS / "sample.png"


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """(150, 225, 3) uint8."""
    from PIL import Image

    return np.asarray(Image.open(ASSETS / "sample.png").convert("RGB"))

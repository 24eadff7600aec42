"""Small networks, pictures to run through them, and a machine with a GPU that is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import Machine, make_engine
from fake_drivers import PACKAGES, library, modules
from small_networks import ModelFactory, make_network, write_model

from runtime import SuperResolver
from runtime.backends import cuda, cuda_pycuda, pixels, trt
from runtime.backends.engine_build import BuildRequest

ASSETS = Path(__file__).resolve().parents[2] / "assets"


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


@pytest.fixture(params=PACKAGES)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """A machine with a GPU, once with each of the two packages that call CUDA."""
    fake = Machine()
    for name, module in modules(fake, request.param).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "tensorrt", fake.tensorrt())
    monkeypatch.setenv("IGNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_pycuda, "load_library", lambda: library(fake))
    monkeypatch.setattr(pixels, "PixelKernels", fake.pixel_kernels())
    plugin = tmp_path / "good.so"
    plugin.write_bytes(b"one version")
    monkeypatch.setenv("IGNN_PLUGIN", str(plugin))
    cuda.open_device.cache_clear()
    yield fake
    cuda.open_device.cache_clear()


@pytest.fixture
def built(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """Builds are recorded, and write the fake's engine."""
    requests: list[BuildRequest] = []

    def build(model: bytes, request: BuildRequest, output: Path, *, source: str) -> None:
        requests.append(request)
        profile = request.profile
        output.write_bytes(make_engine(machine.gpu, (profile.minimum, profile.optimum, profile.maximum)))

    monkeypatch.setattr(trt, "build_engine", build)
    return requests


@pytest.fixture
def frames(photograph: np.ndarray) -> list[np.ndarray]:
    """60 frames of a clip, (48, 64, 3) uint8."""
    return [np.ascontiguousarray(np.roll(photograph, index, axis=1)[:48, :64]) for index in range(60)]


@pytest.fixture(scope="session")
def plain(model_file: ModelFactory) -> SuperResolver:
    """Enlarges flat colors exactly."""
    return SuperResolver(model_file(2, {"noise": 0.0}))

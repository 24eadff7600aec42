"""The golden files end to end: checkpoint, ONNX file, and the native backend's engine on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import BackendUnavailableError

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("polygraphy")

NAMES = (
    "x2_60x60",
    *(pytest.param(name, marks=pytest.mark.shared) for name in ("x2_76x180", "x2_128x140", "x3_60x66", "x4_72x64")),
)
Golden = tuple[Path, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory, golden_file: Callable[[str], Path]) -> Callable[[str], Golden]:
    """A golden file as (ONNX file, lr, sr); each is exported once, which takes longest."""
    from export.to_onnx import export_onnx
    from train import load_checkpoint

    @cache
    def read(name: str) -> Golden:
        folder = tmp_path_factory.mktemp(name)
        content = dict(np.load(golden_file(name)))
        weights = {"module." + key[2:]: torch.from_numpy(v) for key, v in content.items() if key.startswith("w/")}
        torch.save({"net_state_dict": weights}, folder / "released.pth")
        export_onnx(load_checkpoint(folder / "released.pth"), folder / "m.onnx")
        return folder / "m.onnx", content["lr"].astype(np.float32), content["sr"]

    return read


@pytest.mark.parametrize("name", ["x2_60x60", pytest.param("x3_60x66", marks=pytest.mark.shared)])
def test_golden_without_a_gpu(golden: Callable[[str], Golden], name: str) -> None:
    """The same way through ONNX Runtime, so that what waits for a GPU is known to be right up to the engine."""
    from export.verify import compare
    from runtime.backends.ort import OrtBackend

    model, lr, sr = golden(name)
    agrees, line = compare(sr, OrtBackend(model, source="m.onnx", providers=["cpu"]).run(lr), 70)
    assert agrees, line


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_golden(golden: Callable[[str], Golden], tmp_path: Path, flavor: str, name: str) -> None:
    from export.verify import compare
    from runtime.backends.engine_cache import EngineCache
    from runtime.backends.trt import TrtBackend

    model, lr, sr = golden(name)
    try:
        backend = TrtBackend(model.read_bytes(), source="m.onnx", flavor=flavor, cache=EngineCache(tmp_path))
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    agrees, line = compare(sr, backend.run(lr), 70)
    assert agrees, line

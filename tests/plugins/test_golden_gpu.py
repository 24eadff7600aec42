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

NAMES = ("x2_60x60", "x2_76x180", "x2_128x140", "x3_60x66", "x4_72x64")
Golden = tuple[Path, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Golden]:
    """A golden file as (ONNX file, lr, sr); each is exported once, which takes longest."""
    from export.to_onnx import export_onnx
    from train import load_checkpoint

    @cache
    def read(shared: Path, name: str) -> Golden:
        folder = tmp_path_factory.mktemp(name)
        content = dict(np.load(shared / "golden" / f"{name}.npz"))
        weights = {"module." + key[2:]: torch.from_numpy(v) for key, v in content.items() if key.startswith("w/")}
        torch.save({"net_state_dict": weights}, folder / "released.pth")
        export_onnx(load_checkpoint(folder / "released.pth"), folder / "m.onnx")
        return folder / "m.onnx", content["lr"].astype(np.float32), content["sr"]

    return read


@pytest.mark.shared
def test_golden_without_a_gpu(shared: Path, golden: Callable[[Path, str], Golden]) -> None:
    """The same way through ONNX Runtime, so that what waits for a GPU is known to be right up to the engine."""
    from export.verify import compare
    from runtime.backends.ort import OrtBackend

    model, lr, sr = golden(shared, "x3_60x66")
    agrees, line = compare(sr, OrtBackend(model, source="m.onnx", providers=["cpu"]).run(lr), 70)
    assert agrees, line


@pytest.mark.gpu
@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_golden(shared: Path, golden: Callable[[Path, str], Golden], tmp_path: Path, flavor: str, name: str) -> None:
    from export.verify import compare
    from runtime.backends.engine_cache import EngineCache
    from runtime.backends.trt import TrtBackend

    model, lr, sr = golden(shared, name)
    try:
        backend = TrtBackend(model.read_bytes(), source="m.onnx", flavor=flavor, cache=EngineCache(tmp_path))
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    agrees, line = compare(sr, backend.run(lr), 70)
    assert agrees, line

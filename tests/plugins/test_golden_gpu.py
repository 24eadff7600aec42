"""The golden files end to end on a GPU: checkpoint, ONNX file, engine, native backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.errors import BackendUnavailableError

NAMES = ("x2_60x60", "x2_76x180", "x2_128x140", "x3_60x66", "x4_72x64")


@pytest.mark.gpu
@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_golden(shared: Path, tmp_path: Path, flavor: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    from export.to_onnx import export_onnx
    from export.verify import compare
    from runtime.backends.trt import TrtBackend
    from runtime.engine_cache import EngineCache
    from train import load_checkpoint

    golden = dict(np.load(shared / "golden" / f"{name}.npz"))
    weights = {"module." + key[2:]: torch.from_numpy(v) for key, v in golden.items() if key.startswith("w/")}
    torch.save(weights, tmp_path / "released.pth")
    export_onnx(load_checkpoint(tmp_path / "released.pth"), tmp_path / "m.onnx")
    try:
        backend = TrtBackend(
            (tmp_path / "m.onnx").read_bytes(), source="m.onnx", flavor=flavor, cache=EngineCache(tmp_path / "cache")
        )
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    agrees, line = compare(golden["sr"], backend.run(golden["lr"].astype(np.float32)), 70)
    assert agrees, line

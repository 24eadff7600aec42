"""The native backend on a GPU: pictures as bytes, lanes, and CUDA graphs give what one plain run of floats gives.

Once through each package that calls CUDA, and all memory comes back at the end.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from toolchain import Build

from runtime.backends.tensorrt_library import Flavor
from runtime.errors import BackendUnavailableError
from runtime.models import find_model
from runtime.pictures.picture import quantize


@pytest.mark.gpu
@pytest.mark.parametrize("package", ["pycuda.driver", "cuda.bindings.driver"])
@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_every_run_gives_the_same(
    build: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flavor: Flavor,
    package: str,
) -> None:
    from runtime.backends import cuda
    from runtime.backends.engine_cache import EngineCache
    from runtime.backends.trt import TrtBackend

    pytest.importorskip(package)
    if package != "pycuda.driver":
        monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    cuda.open_device.cache_clear()
    monkeypatch.setenv("IGNN_PLUGIN", str(build.library("ignn_plugin")))
    model = find_model("ignn-s-x2")
    with caplog.at_level(logging.WARNING, "ignn"):
        try:
            content = model.checked_path().read_bytes()
            backend = TrtBackend(content, source=model.file, flavor=flavor, cache=EngineCache(tmp_path))
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        assert backend.takes_bytes
        for height in (64, 50, 64):  # another shape, and back
            pixels = np.random.default_rng(height).integers(0, 256, (1, height, 80, 3), np.uint8)
            floats = backend.run(pixels.astype(np.float32).transpose(0, 3, 1, 2))
            expected = quantize(floats.transpose(0, 2, 3, 1), np.dtype(np.uint8), grey=False)
            for result in backend.run_all([pixels] * 12):  # each lane plainly, captured, replayed
                np.testing.assert_array_equal(result, expected)
    assert "no CUDA graphs" not in caplog.text
    before = backend.free_memory()
    backend.close()
    freed = backend.free_memory() - before
    assert freed >= 3 * 64 * 80 * (3 + 12 + 12 * 4), "of each lane: bytes, floats, and four times the floats"
    cuda.open_device.cache_clear()

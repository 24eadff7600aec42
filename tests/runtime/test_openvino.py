"""OpenVINO's backend, against ONNX Runtime, and what it refuses. Intel's GPUs and bfloat16 are nowhere here."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from test_foreign import nearest, nearest_network

from runtime import SuperResolver, cli, errors
from runtime.backends import BackendMemoryError, discovery, ov
from runtime.errors import BackendUnavailableError, UsageError

pytest.importorskip("openvino")


def open_it(model: object = None, **options: object) -> SuperResolver:
    return SuperResolver(model, backend="openvino", **options)


def largest_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max())


@pytest.mark.parametrize("name", ["ignn-s-x2", "edsr-s-x2"])
def test_the_bundled_networks_as_onnx_runtime_gives_them(name: str, photograph: np.ndarray) -> None:
    lr = photograph[40:76, 60:104].astype(np.float32)
    with open_it(name) as resolver, SuperResolver(name, providers=["cpu"]) as reference:
        assert largest_difference(resolver.super_resolve(lr), reference.super_resolve(lr)) < 0.01
        assert resolver.description.startswith("OpenVINO 20")
        assert resolver.description.endswith("(CPU, fp32)")


def test_tiles_are_exact_and_one_shape_is_compiled_once(
    x2_model: Path, photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_it(x2_model, tile=None) as whole, open_it(x2_model, tile=48) as tiled:
        compiled = []
        backend: Any = tiled.network.backend
        monkeypatch.setattr(backend, "_check_compiled", compiled.append)
        values = photograph.astype(np.float32)
        expected = whole.super_resolve(values)
        assert largest_difference(tiled.super_resolve(values), expected) < 1e-3
        assert 1 < len(compiled) < 20
        assert len(backend._compiled) <= ov._MOST_SHAPES
        with tiled.map([photograph[:32, :32]] * 2, batch=2) as results:
            assert np.array_equal(*results)


def test_exact_tiles_of_a_network_with_a_graph() -> None:
    """Of the bundled one: the context that a tile carries is all that it sees."""
    lr = np.random.default_rng(0).uniform(0, 255, (8, 240, 3)).astype(np.float32)
    with open_it(tile=None) as whole, open_it(tile=120) as tiled:
        assert len(tiled.network.plan(8, 240)) == 2
        assert largest_difference(tiled.super_resolve(lr), whole.super_resolve(lr)) < 0.01


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ([None] * 4, {"unshuffle": 2}),
        ([1, 3, 32, 48], {}),
        ([1, 1, "h", "w"], {"channels": 1}),
        ([None, 3, None, None], {"kind": TensorProto.FLOAT16}),
    ],
)
def test_models_of_others(tmp_path: Path, shape: list[object], options: dict[str, object], photograph) -> None:
    model = nearest_network(tmp_path / "m.onnx", shape, **options)
    image = photograph[:37, :61]
    with open_it(model, scale=2, value_range="0..1") as resolver:
        assert np.abs(resolver(image).astype(int) - nearest(image)).max() <= (0 if "channels" not in options else 60)


def test_the_command(x2_model: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["upscale", str(sample), "-o", str(tmp_path / "a.png"), "--model", str(x2_model)]
    chosen = ["--backend", "openvino", "--precision", "fp32", "--device", "CPU", "--threads", "1"]
    assert cli.main([*command, *chosen]) == 0
    assert (tmp_path / "a.png").is_file()
    for wrong, message in (
        (["--backend", "openvino", "--device", "GPU.7"], "OpenVINO finds no GPU.7 here"),
        (["--backend", "openvino", "--device", "1"], "Invalid device (1). Of OpenVINO CPU, GPU"),
        (["--backend", "openvino", "--device", "NPU"], "Invalid device ('NPU'). Of OpenVINO CPU, GPU"),
        (["--backend", "openvino", "--provider", "cpu"], "providers are ONNX Runtime's"),
        (["--backend", "openvino", "--devices", "0,1"], "devices are NVIDIA GPUs"),
        (["--precision", "bf16"], "precision is OpenVINO's; leave it out for backend 'ort'"),
        (["--backend", "tensorrt", "--precision", "fp32"], "leave it out for backend 'tensorrt'"),
        (["--engine", "m.engine", "--precision", "fp32"], "leave them out for an engine"),
        (["--engine", "m.engine", "--backend", "openvino"], "An engine runs in TensorRT. Leave out the backend"),
        (["--device", "GPU"], "Invalid device ('GPU'). Whole numbers from 0 are supported"),
    ):
        assert cli.main([*command, *wrong]) == 1, wrong
        assert message in capsys.readouterr().err


def test_a_precision_that_the_device_lacks_is_refused(x2_model: Path) -> None:
    has_it = "BF16" in ov.import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if has_it:
        with open_it(x2_model, precision="bf16") as resolver:
            assert resolver.description.endswith("(CPU, bf16)")
            assert resolver(np.full((8, 8, 3), 128, np.uint8)).shape == (16, 16, 3)
        return
    with pytest.raises(BackendUnavailableError, match=r"does not compute in bf16.*--precision fp32"):
        open_it(x2_model, precision="bf16")


def test_a_network_compiled_in_another_precision_is_refused(x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a device that says it has it; a CPU with AVX-512 says no, and emulates it where it is made to."""
    monkeypatch.setattr(ov.OpenVinoBackend, "_check_precision", lambda self: None)
    with open_it(x2_model, precision="bf16") as resolver:
        backend = resolver.network.backend
        assert isinstance(backend, ov.OpenVinoBackend)
        monkeypatch.setitem(backend._options, "INFERENCE_PRECISION_HINT", ov.import_openvino().Type.f32)
        with pytest.raises(BackendUnavailableError, match="in bf16"):
            resolver(np.zeros((8, 8, 3), np.uint8))


def test_wrong_values(x2_model: Path) -> None:
    with pytest.raises(UsageError, match=r"Invalid precision \('fp16'\)"):
        open_it(x2_model, precision="fp16")
    with pytest.raises(UsageError, match="Invalid backend"):
        SuperResolver(x2_model, backend="openvivo")


def test_it_is_not_installed(x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(BackendUnavailableError, match=r"OpenVINO cannot be imported.*pip install.*\[openvino\]"):
        open_it(x2_model)


def test_an_operator_that_it_does_not_know(tmp_path: Path, x2_model: Path) -> None:
    model = onnx.load(x2_model)
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Unheard", "nobody"
    model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(errors.ModelLoadError, match=r"m.onnx cannot be loaded by OpenVINO.*nobody.Unheard"):
        open_it(tmp_path / "m.onnx")


def test_memory_closing_and_cancelling(x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    resolver = open_it(x2_model)
    resolver(image)
    backend: Any = resolver.network.backend
    lr = np.zeros((1, 3, 8, 8), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_compile", lambda shape: (_ for _ in ()).throw(RuntimeError("std::bad_alloc")))
        with pytest.raises(BackendMemoryError):
            backend.run(lr)
        assert not backend._compiled
    resolver.close()
    resolver.close()
    with pytest.raises(errors.ClosedError):
        resolver(image)
    other = open_it(x2_model)
    other.network.backend.cancel()
    with pytest.raises(errors.IgnnError, match="cancelled"):
        other(image)


def test_a_run_that_is_cancelled_ends(photograph: np.ndarray) -> None:
    with open_it("edsr-s-x2") as resolver:
        backend: Any = resolver.network.backend
        lr = photograph[None, :100, :100].transpose(0, 3, 1, 2).astype(np.float32)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                while True:
                    backend.run(lr)
            except errors.IgnnError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while backend._request is None:
            thread.join(0.05)
        backend.cancel()
        thread.join(60)
        assert failed


def test_ignn_bench_takes_it_in() -> None:
    ways = {way.name: way for way in discovery.installed_ways()}
    assert ways["OpenVINO, bf16"].options == {"backend": "openvino", "precision": "bf16"}
    assert ways["OpenVINO, fp32"].flags == ("--backend", "openvino", "--precision", "fp32")


def test_a_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names alone: there is no GPU of Intel here."""
    assert ov._check_device("GPU", ["CPU", "GPU.0", "GPU.1"]) == "GPU"
    assert ov._check_device("GPU.1", ["CPU", "GPU.0", "GPU.1"]) == "GPU.1"
    with pytest.raises(BackendUnavailableError, match=r"it finds CPU\)"):
        ov._check_device("GPU", ["CPU"])

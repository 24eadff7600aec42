"""The public class: kinds of images in and out, errors, and what a bare import costs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_networks import make_network, write_model

from runtime import SuperResolver, errors, models


def reference(model: Path, rgb: np.ndarray) -> np.ndarray:
    """What the network gives, straight from ONNX Runtime: (H, W, 3) float32."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (sr,) = session.run(None, {"lr": rgb.astype(np.float32).transpose(2, 0, 1)[None]})
    return sr[0].transpose(1, 2, 0)


def test_uint8_array(x2_model, resolver, photograph):
    sr = resolver(photograph)
    assert sr.shape == (300, 450, 3)
    assert sr.dtype == np.uint8
    assert np.array_equal(sr, np.clip(np.rint(reference(x2_model, photograph)), 0, 255).astype(np.uint8))


def test_same_kind_comes_back(resolver, sample, photograph):
    expected = resolver(photograph)
    from_path = resolver(sample)
    from_pil = resolver(Image.open(sample))
    assert isinstance(from_path, Image.Image)
    assert isinstance(from_pil, Image.Image)
    assert np.array_equal(np.asarray(from_path), expected)
    assert np.array_equal(np.asarray(from_pil), expected)
    assert np.array_equal(np.asarray(resolver(str(sample))), expected)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from(["u1", "<u2", ">u2", "f4", "f8", "f2"]),
    seed=st.integers(0, 99),
)
def test_every_array_comes_back_with_its_type(resolver, height, width, channels, dtype, seed):
    shape = (height, width) if channels is None else (height, width, channels)
    values = np.random.default_rng(seed).random(shape)
    kind = np.dtype(dtype)
    image = (values if kind.kind == "f" else values * np.iinfo(kind).max).astype(kind)
    sr = resolver(image)
    assert sr.shape == (2 * height, 2 * width, *shape[2:])
    assert sr.dtype == kind
    if kind.kind == "f":
        assert sr.min() >= 0
        assert sr.max() <= 1


def test_sixteen_bits_are_kept(resolver):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    assert len(np.unique(resolver(ramp))) > 2000


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 5, 2), np.uint8), r"shape \(5, 5, 2\)"),
        (np.zeros((1, 3, 5, 5), np.uint8), r"shape \(1, 3, 5, 5\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((5, 5, 3), np.int32), "type int32"),
        (np.zeros((5, 5, 3), bool), "type bool"),
        (np.full((5, 5, 3), np.nan, np.float32), "NaN"),
        (np.full((5, 5, 3), np.inf, np.float64), "infinite"),
        (np.full((5, 5, 3), 200.0), "0..1 is expected"),
        (Image.new("F", (4, 4), 200), "0..1 is expected"),
        (Image.new("I", (4, 4), -1), "0..65535"),
    ],
)
def test_images_that_mean_nothing_are_refused(resolver, image, message):
    with pytest.raises(errors.InvalidImageError, match=message):
        resolver(image)


def test_self_ensemble_is_the_mean_over_flips_and_turns(x2_model, photograph):
    lr = photograph[:37, :50].astype(np.float32)
    expected = np.zeros((74, 100, 3))
    for turn in range(4):
        for flip in (0, 1):
            turned = np.rot90(lr, turn)
            sr = reference(x2_model, turned[:, ::-1] if flip else turned)
            expected += np.rot90(sr[:, ::-1] if flip else sr, -turn) / 8
    for tile in (None, 16):
        ours = SuperResolver(x2_model, self_ensemble=True, tile=tile).super_resolve(lr)
        assert np.abs(ours - expected).max() < 0.01


def test_unit_value_range_of_a_foreign_model(tmp_path, photograph, x2_model):
    foreign = tmp_path / "foreign.onnx"
    onnx.save(make_network(2), foreign)
    with pytest.raises(errors.ModelMetadataError, match="--scale 2 --value-range"):
        SuperResolver(foreign)
    lr = photograph[:40, :40].astype(np.float32)
    unit = SuperResolver(foreign, scale=2, value_range="0..1").super_resolve(lr)
    assert np.abs(unit - reference(x2_model, lr)).max() < 0.01  # the network is linear but for a maximum
    with pytest.raises(errors.ModelLoadError, match="scale 3"):
        SuperResolver(foreign, scale=3, value_range="0..1")(photograph)
    with pytest.raises(errors.UsageError, match="its own scale"):
        SuperResolver(x2_model, scale=2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale", None),
        ("scale", "0"),
        ("scale", "-2"),
        ("scale", "2.0"),
        ("scale", "9" * 5000),
        ("scale", "٢"),
        ("halo", "1e9"),
        ("window", ""),
        ("tile_multiple", "6"),
        ("color", "BGR"),
        ("value_range", "0..1"),
        ("precision", "int8"),
        ("bytes_per_pixel", "-1"),
        ("format", "2"),
    ],
)
def test_untrue_metadata_is_refused(tmp_path, key, value):
    path = write_model(tmp_path / "m.onnx", make_network(2), **{key: value})
    with pytest.raises(errors.ModelMetadataError, match=f"(?s)metadata.*({key}|format)"):
        SuperResolver(path)


def test_wrong_model_files(tmp_path, x2_model):
    with pytest.raises(errors.ModelNotFoundError, match="no model file"):
        SuperResolver(tmp_path / "absent.onnx")
    with pytest.raises(errors.ModelNotFoundError, match="nonesuch"):
        SuperResolver("nonesuch")
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(x2_model.read_bytes()[:500])
    with pytest.raises(errors.ModelLoadError, match=r"truncated\.onnx cannot be loaded"):
        SuperResolver(truncated)
    picture = tmp_path / "picture.onnx"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(errors.ModelLoadError):
        SuperResolver(picture)
    fixed = make_network(2)
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    with pytest.raises(errors.ModelLoadError, match="free height and width"):
        SuperResolver(write_model(tmp_path / "fixed.onnx", fixed))


def test_a_network_that_gives_nan_is_an_error(model_file, photograph):
    broken = SuperResolver(model_file(2, {"gain": 1e30}))
    with pytest.raises(errors.NonFiniteOutputError, match="NaN or infinite"):
        broken(photograph[:20, :20])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_absent_is_an_error(x2_model, provider):
    from runtime.backends.ort import PROVIDERS

    if PROVIDERS[provider] in ort.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(errors.BackendUnavailableError, match=r"ignn\[gpu\]"):
        SuperResolver(x2_model, providers=[provider])


def test_a_silent_fallback_is_an_error(x2_model, monkeypatch):
    """ONNX Runtime built with CUDA, on a machine without: it warns and runs on the CPU. Its edge is faked here."""
    session = ort.InferenceSession

    def on_the_cpu(model, options, providers):
        return session(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", on_the_cpu)
    for providers in (["cuda"], None):
        with pytest.raises(errors.ProviderFallbackError, match="got CPUExecutionProvider"):
            SuperResolver(x2_model, providers=providers)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tile": 0},
        {"tile": "large"},
        {"halo": -1},
        {"max_pixels": 0},
        {"threads": 0},
        {"threads": 1.5},
        {"backend": "directml"},
        {"backend": "auto"},
        {"providers": "cpu"},
        {"providers": ["gpu"]},
    ],
)
def test_arguments_that_are_not_accepted(x2_model, arguments):
    with pytest.raises(errors.UsageError, match="Invalid"):
        SuperResolver(x2_model, **arguments)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two CPUs"
)
@pytest.mark.parametrize("opening", ["runtime.SuperResolver", "train.evaluate.load_upscaler"])
def test_threads_stay_on_the_cpus_the_process_may_use(x2_model, opening):
    """ONNX Runtime left alone pins its threads to all cores of the machine, whatever taskset or a cpuset says."""
    module, name = opening.rsplit(".", 1)
    program = (
        "import os; one = {min(os.sched_getaffinity(0))}; os.sched_setaffinity(0, one)\n"
        f"from pathlib import Path; from {module} import {name}\n"
        f"opened = {name}(Path({str(x2_model)!r}))\n"
        "elsewhere = [t for t in os.listdir('/proc/self/task') if os.sched_getaffinity(int(t)) != one]\n"
        "raise SystemExit(len(elsewhere))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def bundle(tmp_path, x2_model, monkeypatch):
    """A folder of bundled models with one in it."""
    content = x2_model.read_bytes()
    (tmp_path / "test-x2.onnx").write_bytes(content)
    described = {
        "name": "test-x2",
        "file": "test-x2.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "scale": 2,
        "kind": "graph",
        "precision": "fp32",
        "training_data": "none",
        "license": "CC0-1.0",
        "psnr_y_db": {"Set5": 30.0},
        "seconds": None,
        "seconds_on": "",
    }
    (tmp_path / "models.json").write_text(json.dumps({"default": "test-x2", "models": [described]}))
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    return tmp_path


def test_bundled_models(bundle, photograph, resolver):
    expected = resolver(photograph)
    assert np.array_equal(SuperResolver()(photograph), expected)
    assert np.array_equal(SuperResolver("test-x2")(photograph), expected)
    assert models.check() == 1


def test_a_bundled_model_that_was_changed_is_refused(bundle):
    content = bytearray((bundle / "test-x2.onnx").read_bytes())
    content[100] ^= 1
    (bundle / "test-x2.onnx").write_bytes(content)
    with pytest.raises(errors.ModelChecksumError, match="not the published"):
        SuperResolver()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"default": "x", "models": []}', '{"default": "x", "models": [{"name": "x"}]}']
)
def test_a_damaged_list_of_models_is_refused(bundle, text):
    (bundle / "models.json").write_text(text)
    with pytest.raises(errors.ModelChecksumError, match="damaged"):
        SuperResolver()


def test_no_bundled_model(bundle):
    (bundle / "models.json").unlink()
    with pytest.raises(errors.ModelNotFoundError, match="ignn export"):
        SuperResolver()


def test_the_bundle_of_this_checkout_is_whole():
    assert models.check() == len(models.bundled_models())


def test_import_is_light():
    """It loads no heavy module. What it takes in time is measured by `python -m benchmarks startup`."""
    program = "import sys; from runtime import SuperResolver; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "runtime.super_resolver" in loaded
    assert not {"torch", "onnx", "onnxruntime", "train", "export", "plugins", "tqdm", "tifffile", "subprocess"} & loaded


def test_a_bare_import_is_lighter_still():
    program = "import sys; import runtime; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "runtime.super_resolver"} & set(result.stdout.split())

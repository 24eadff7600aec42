"""ONNX Runtime's plugin providers by name. None has a device here: the CPU's own device stands in for one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import SuperResolver, cli
from runtime.backends import discovery, ort, plugin_providers
from runtime.errors import BackendUnavailableError, UsageError

REAL = {short: full for short, full in ort.PROVIDERS.items() if plugin_providers.has_plugin(full)}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The provider `webgpu` is a plugin whose device is the CPU; gives what was registered."""
    registered: list[tuple[str, str]] = []
    module = SimpleNamespace(get_library_path=lambda: "/lib/plugin.so")
    monkeypatch.setitem(sys.modules, "fake_plugin", module)
    module.__spec__ = importlib.util.spec_from_loader("fake_plugin", None)
    monkeypatch.setattr(plugin_providers, "_registered", set())
    monkeypatch.setitem(plugin_providers._PACKAGES, "CPUExecutionProvider", ("fake_plugin", "pip install x", "tests"))
    monkeypatch.setitem(ort.PROVIDERS, "webgpu", "CPUExecutionProvider")
    monkeypatch.setitem(ort.PROVIDERS, "cpu", "built-in CPU")
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ["built-in CPU"])
    monkeypatch.setattr(ort.ort, "register_execution_provider_library", lambda *given: registered.append(given))
    return registered


def test_a_plugin_is_loaded_once_and_runs(stand_in, x2_model: Path) -> None:
    for options in ({"providers": ["webgpu"]}, {"providers": ["webgpu", "cpu"]}, {"providers": [("webgpu", {})]}):
        with SuperResolver(x2_model, **options) as resolver:
            assert resolver(np.zeros((8, 12, 3), np.uint8)).shape == (16, 24, 3)
            assert resolver.network.backend.on_host  # by its device
            assert resolver.network.backend.stages is None  # they are the CPU provider's own
    assert stand_in == [("CPUExecutionProvider", "/lib/plugin.so")]


def test_a_device_that_a_plugin_lacks(stand_in, x2_model: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="has no device 1 here, of 1"):
        SuperResolver(x2_model, providers=[("webgpu", {"device_id": 1})])
    with pytest.raises(UsageError, match=r"Invalid device_id \('one'\)"):
        SuperResolver(x2_model, providers=[("webgpu", {"device_id": "one"})])
    with pytest.raises(UsageError, match="'webgpu' is a plugin of ONNX Runtime, and goes alone"):
        SuperResolver(x2_model, providers=["webgpu", "openvino"])


def test_it_is_never_another_provider(stand_in, x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort.ort, "get_ep_devices", list)
    with pytest.raises(BackendUnavailableError, match=r"CPUExecutionProvider finds no device here\. It is for tests"):
        SuperResolver(x2_model, providers=["webgpu"])


@pytest.mark.parametrize("name", REAL)
def test_the_real_ones_work_or_say_what_is_missing(
    name: str, x2_model: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = plugin_providers.is_installed(REAL[name])
    assert (name in ort.available_providers()) == installed
    assert (f"ONNX Runtime, {name}" in {way.name for way in discovery.installed_ways()}) == installed
    command = ["upscale", str(sample), "-o", str(tmp_path / "a.png"), "--model", str(x2_model), "--provider", name]
    if cli.main(command) == 0:
        assert (tmp_path / "a.png").is_file()
        return
    said = capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
    assert "Or ask for --provider cpu" in said
    assert ("cannot load the plugin" in said or "finds no device here" in said) if installed else "pip install" in said

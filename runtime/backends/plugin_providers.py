"""ONNX Runtime's plugin providers: packages of their own, each with a library that ONNX Runtime is told to load."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from typing import Any

from ..clone import install_command
from ..errors import BackendUnavailableError, UsageError, first_line
from .onnx_runtime import onnxruntime as ort

_PACKAGES = {
    "OpenVINOExecutionProvider": (
        "onnxruntime_ep_openvino",
        "pip install onnxruntime-ep-openvino",
        "Intel's CPUs and GPUs",
    ),
    "WebGpuExecutionProvider": ("onnxruntime_ep_webgpu", "pip install onnxruntime-ep-webgpu", "GPUs with Vulkan"),
    "NvTensorRTRTXExecutionProvider": (
        "onnxruntime_ep_nv_tensorrt_rtx",
        install_command("rtx"),
        "NVIDIA's RTX GPUs with their driver",
    ),
}
"""Of each provider its module, the command that installs it, and what it is for."""

_registering = threading.Lock()
_registered: set[str] = set()


def has_plugin(provider: str) -> bool:
    """Return whether a provider, by ONNX Runtime's name, comes as a plugin that we know."""
    return provider in _PACKAGES


def is_installed(provider: str) -> bool:
    """Return whether a plugin's package is installed. Whether it works, its devices show."""
    return provider in _PACKAGES and importlib.util.find_spec(_PACKAGES[provider][0]) is not None


def plugin_device(provider: str, index: int) -> Any:  # noqa: ANN401 - ONNX Runtime's OrtEpDevice
    """Load a provider's plugin, and return the device of that index that it runs on.

    Args:
        provider: ONNX Runtime's name of it.
        index: among the devices that it offers, from 0.

    Raises:
        BackendUnavailableError: the package is not installed, its library cannot be loaded, or it has no such device.
    """
    module, install, purpose = _PACKAGES[provider]
    if not is_installed(provider):
        raise BackendUnavailableError(
            f"ONNX Runtime's plugin for {provider} is not installed. Install it with: {install}\n"
            "Or ask for --provider cpu."
        )
    try:
        with _registering:
            if provider not in _registered:
                library = importlib.import_module(module).get_library_path()
                ort.register_execution_provider_library(provider, library)
                _registered.add(provider)
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise BackendUnavailableError(
            f"ONNX Runtime {ort.__version__} cannot load the plugin for {provider}: {first_line(error)}. It is for "
            f"{purpose}. Or ask for --provider cpu."
        ) from error
    devices = [device for device in ort.get_ep_devices() if device.ep_name == provider]
    if index >= len(devices):
        there = f"has no device {index} here, of {len(devices)}" if devices else "finds no device here"
        raise BackendUnavailableError(f"{provider} {there}. It is for {purpose}. Or ask for --provider cpu.")
    return devices[index]


def add_plugin(options: ort.SessionOptions, provider: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    """Have a session run on a plugin's device, and return the device.

    Args:
        options: the session's; they are changed.
        provider: ONNX Runtime's name of it.
        settings: the provider's options, to which we add one: `device_id`, the index of the device.

    Raises:
        BackendUnavailableError: as of `plugin_device`.
        UsageError: `device_id` is no index.
    """
    number = str(settings.get("device_id", 0))
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"Invalid device_id ({number!r}). Whole numbers from 0 are supported.")
    device = plugin_device(provider, int(number))
    options.add_provider_for_devices(
        [device], {key: str(value) for key, value in settings.items() if key != "device_id"}
    )
    return device

"""Which ways to run a network are installed here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from . import PRECISIONS
from .tensorrt_library import FLAVORS, NAMES, Flavor, provider_libraries


@dataclass(frozen=True)
class Way:
    """One way to run a network.

    Attributes:
        name: for people.
        options: arguments of `SuperResolver`.
        flags: the same for `ignn upscale`.
    """

    name: str
    options: dict[str, Any]
    flags: tuple[str, ...]


def installed_ways() -> list[Way]:
    """Return every way whose packages are installed, ONNX Runtime on the CPU first. Whether it works, a run shows."""
    ways = []
    if importlib.util.find_spec("onnxruntime") is not None:
        from .ort import available_providers

        ways += [
            Way(f"ONNX Runtime, {name}", {"providers": [name]}, ("--provider", name)) for name in available_providers()
        ]
    if importlib.util.find_spec("openvino") is not None:
        ways += [
            Way(
                f"OpenVINO, {precision}",
                {"backend": "openvino", "precision": precision},
                ("--backend", "openvino", "--precision", precision),
            )
            for precision in PRECISIONS
        ]
    ways += [
        Way(NAMES[flavor], {"backend": flavor}, ("--backend", flavor)) for flavor in FLAVORS if _is_installed(flavor)
    ]
    return ways


def _is_installed(flavor: Flavor) -> bool:
    if flavor == "tensorrt":
        return importlib.util.find_spec("tensorrt") is not None
    return importlib.util.find_spec("tensorrt_rtx") is not None or bool(provider_libraries())

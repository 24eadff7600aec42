"""Finding and importing TensorRT and TensorRT-RTX, whichever package their libraries came in."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from ..clone import PACKAGE_FOLDER, install_command
from ..errors import BackendUnavailableError, UsageError

Flavor = Literal["tensorrt", "tensorrt-rtx"]
FLAVORS: tuple[Flavor, ...] = get_args(Flavor)
NAMES: dict[Flavor, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}

_PROVIDER = "onnxruntime_ep_nv_tensorrt_rtx"  # ONNX Runtime's provider, which brings TensorRT-RTX's libraries
_BINDINGS = "tensorrt_rtx_bindings"


def check_flavor(name: str) -> Flavor:
    """Return the flavor of that name.

    Raises:
        UsageError: there is none.
    """
    for flavor in FLAVORS:
        if name == flavor:
            return flavor
    raise UsageError(f"Invalid backend ({name!r}). Supported values are {', '.join(map(repr, FLAVORS))}.")


def install_hint(flavor: Flavor) -> str:
    """Return what to type where this TensorRT is missing."""
    return "pip install 'tensorrt>=10.15,<12'" if flavor == "tensorrt" else install_command("rtx")


def import_tensorrt(flavor: Flavor) -> ModuleType:
    """Import TensorRT's Python module.

    TensorRT-RTX's own package is taken where it is installed. Else its libraries are those of ONNX Runtime's provider:
    loaded here, because its bindings look for them on the library path only.

    Raises:
        BackendUnavailableError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        if flavor == "tensorrt":
            return importlib.import_module("tensorrt")
        if importlib.util.find_spec("tensorrt_rtx") is not None:
            return importlib.import_module("tensorrt_rtx")
        for library in provider_libraries():
            ctypes.CDLL(str(library))
        return importlib.import_module(_BINDINGS)
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"{NAMES[flavor]} cannot be imported ({error}). Install it with: {install_hint(flavor)}"
        ) from error


def make_logger(trt: ModuleType, said: Callable[[str], None]) -> object:
    """Make a logger for TensorRT that hands each error's text to `said`."""

    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                said(message)

    return Logger()


def load_plugin(trt: ModuleType, logger: object, library: Path) -> bool:
    """Register the graph operators' plugins; False if TensorRT cannot load the library."""
    trt.init_libnvinfer_plugins(logger, "")
    registry = trt.get_plugin_registry()
    if any(getattr(creator, "plugin_namespace", "") == "ignn" for creator in registry.all_creators):
        return True  # by an earlier backend of this process
    return registry.load_library(str(library)) is not None


def provider_libraries() -> list[Path]:
    """Return TensorRT-RTX's libraries in the wheel of ONNX Runtime's provider, the core first; empty if it is absent.

    Importing the provider leaves links to them in its folder, `.so` and `.so.1`: those are no libraries more.
    """
    provider = importlib.util.find_spec(_PROVIDER)
    if provider is None or not provider.submodule_search_locations:
        return []
    folder = Path(provider.submodule_search_locations[0])
    found = [*folder.glob("libtensorrt_rtx.so.*"), *folder.glob("libtensorrt_onnxparser_rtx.so.*")]
    return [library for library in found if not library.is_symlink()]


def parser_environment(flavor: Flavor, links: Path) -> dict[str, str]:
    """Return the environment of a process that parses ONNX files with TensorRT.

    TensorRT-RTX's parser opens `libtensorrt_rtx.so`, a name that the provider's wheel lacks, and ends the process if
    it is not found. The search path is read when a process starts, so it takes one that starts with this.

    Args:
        flavor: which TensorRT.
        links: an empty folder, for links of that name; it must live as long as the process.
    """
    environment = dict(os.environ)
    root = str(PACKAGE_FOLDER.parent)  # where this package is found by its name
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    if flavor == "tensorrt":
        return environment
    environment["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
    if importlib.util.find_spec("tensorrt_rtx") is None:
        for library in provider_libraries():
            name = library.name.split(".so")[0]
            for link in (f"{name}.so", f"{name}.so.1"):
                (links / link).symlink_to(library)
        path = [str(links), environment.get("LD_LIBRARY_PATH")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, path))
    return environment

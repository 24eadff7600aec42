"""Where the libraries of plugins/CMakeLists.txt are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from ..clone import find_clone
from ..errors import BackendUnavailableError

PLUGIN_BUILD = "cmake -S plugins -B build && cmake --build build --parallel"
"""The command, in a clone, that builds the libraries."""


def find_library(name: str = "ignn_plugin", *, folder: Path | None = None) -> Path:
    """Return the path of a library that plugins/CMakeLists.txt builds.

    Args:
        name: `ignn_plugin` (for TensorRT's registry and `trtexec --dynamicPlugins`), `ignn_plugin_static_init`
            (registers itself when loaded: `trtexec --staticPlugins`, Polygraphy, ONNX Runtime) or `ignn_kernels`
            (no TensorRT: for PyTorch).
        folder: where it was built, if not in the clone's `build`.

    Raises:
        BackendUnavailableError: if it is not there; the message says how to build it.
    """
    clone = find_clone()
    if folder is None and clone is None:
        raise BackendUnavailableError(
            f"lib{name}.so is built in a clone of the project, and this is an installed package. Build it there with: "
            f"{PLUGIN_BUILD}. Then say where it is: --plugin LIB, or IGNN_PLUGIN=LIB."
        )
    file = (folder or Path(clone or ".") / "build") / f"lib{name}.so"
    if not file.is_file():
        needs = "the CUDA toolkit" + ("" if name == "ignn_kernels" else " and TensorRT's public headers")
        raise BackendUnavailableError(
            f"The plugin library is not built: {file} does not exist. It needs {needs}; build it in {clone or folder} "
            f"with: {PLUGIN_BUILD}. Or say where it is: --plugin LIB, or IGNN_PLUGIN=LIB."
        )
    return file


def check_plugin(plugin: Path | None) -> Path:
    """Return the plugin library's path, checked to be there.

    Args:
        plugin: where the user says it is; None: `$IGNN_PLUGIN`, else where the build puts it.

    Raises:
        BackendUnavailableError: if it is not there; the message says where it was looked for and how to build it.
    """
    named = plugin or (Path(os.environ["IGNN_PLUGIN"]) if os.environ.get("IGNN_PLUGIN") else None)
    if named is None:
        return find_library("ignn_plugin")
    if named.is_file():
        return named.resolve()
    raise BackendUnavailableError(f"There is no plugin library {named}. Build it in a clone with: {PLUGIN_BUILD}")

"""Find the libraries that plugins/CMakeLists.txt builds, or say how to build them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ..clone import find_clone
from ..errors import BackendUnavailableError


def build_command() -> str:
    """Return the command that builds the libraries, as it is to be typed in the working folder."""
    clone = find_clone()
    if clone is None:  # an installed package, away from a clone
        return "cmake -S plugins -B build && cmake --build build --parallel (in a clone of the project)"
    if clone == Path.cwd():
        return "cmake -S plugins -B build && cmake --build build --parallel"
    source, build = shlex.quote(str(clone / "plugins")), shlex.quote(str(clone / "build"))
    return f"cmake -S {source} -B {build} && cmake --build {build} --parallel"


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
            f"An installed package has no lib{name}.so. Build it with: {build_command()}. Then say where it is: "
            "--plugin LIB, or IGNN_PLUGIN=LIB."
        )
    file = (folder or Path(clone or ".") / "build") / f"lib{name}.so"
    if not file.is_file():
        needs = "the CUDA toolkit" + ("" if name == "ignn_kernels" else " and TensorRT's public headers")
        raise BackendUnavailableError(
            f"The plugin library is not built: {file} does not exist. It needs {needs}; build it with: "
            f"{build_command()}. Or say where it is: --plugin LIB, or IGNN_PLUGIN=LIB."
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
    raise BackendUnavailableError(f"There is no plugin library {named}. Build it with: {build_command()}")


def find_plugin(engine: bytes | None) -> Path | None:
    """Return the plugin library that has to be loaded for an engine; None for one that holds it.

    Args:
        engine: the engine's content; None: engines that are still to be built, which need the library.

    Raises:
        BackendUnavailableError: if engines are to be built and the library is not there.
    """
    try:
        library = check_plugin(None)
    except BackendUnavailableError:
        if engine is None:
            raise
        return None  # it may be inside; if not, TensorRT says what it misses
    return None if engine is not None and library.read_bytes() in engine else library

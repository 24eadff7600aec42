"""The graph operators on NVIDIA GPUs: CUDA kernels, and the TensorRT plugins around them."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD_COMMAND = "cmake -S plugins -B build && cmake --build build --parallel"


def find_library(name: str = "ignn_plugin", *, folder: Path | None = None) -> Path:
    """Return the path of a library that plugins/CMakeLists.txt builds.

    Args:
        name: `ignn_plugin` (for TensorRT's registry and `trtexec --dynamicPlugins`), `ignn_plugin_static_init`
            (registers itself when loaded: `trtexec --staticPlugins`, Polygraphy, ONNX Runtime) or `ignn_kernels`
            (no TensorRT: for PyTorch).
        folder: where it was built, if not in `build` beside this package.

    Raises:
        FileNotFoundError: if it is not there; the message says how to build it.
    """
    file = (folder or REPOSITORY / "build") / f"lib{name}.so"
    if not file.is_file():
        needs = "the CUDA toolkit" + ("" if name == "ignn_kernels" else " and TensorRT's public headers")
        raise FileNotFoundError(
            f"{file} does not exist. It needs {needs}; build it in {REPOSITORY} with: {BUILD_COMMAND}"
        )
    return file

"""What the plugin's tests need beyond Python: compilers, headers, TensorRT-RTX, a GPU. Absent ones skip by name."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from host_kernels import HostKernels
from toolchain import REPOSITORY, Build, cuda_include, tool

from runtime.backends.tensorrt_library import provider_libraries

EMULATION = Path(__file__).parent / "emulation"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that compiles sources for the host into a shared library."""

    def build(name: str, *arguments: str | Path) -> Path:
        library = tmp_path_factory.mktemp(name) / f"lib{name}.so"
        flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
        command = [tool("g++"), *flags, *map(str, arguments), "-o", str(library)]
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr
        return library

    return build


@pytest.fixture(scope="session")
def geometry(host_library: Callable[..., Path]) -> ctypes.CDLL:
    """plugins/kernels/geometry.h, built for the host."""
    return ctypes.CDLL(str(host_library("geometry", EMULATION / "geometry.cpp")))


@pytest.fixture(scope="session")
def host_kernels(host_library: Callable[..., Path]) -> HostKernels:
    """The kernels' own source on an emulated GPU."""
    return HostKernels(_host_kernels(host_library, "host_kernels"))


@pytest.fixture(scope="session")
def tf32_kernels(host_library: Callable[..., Path]) -> HostKernels:
    """The same on one that multiplies floats by TF32 (compute capability 8.0, 9.0, 10.0)."""
    return HostKernels(_host_kernels(host_library, "tf32_kernels", "-DIGNN_TF32"))


def _host_kernels(host_library: Callable[..., Path], name: str, *flags: str) -> Path:
    kernels = REPOSITORY / "plugins" / "kernels"
    sources = [
        kernels / "windowed_knn" / "windowed_knn.cu",
        kernels / "key_statistics" / "key_statistics.cu",
        kernels / "adapn_gather" / "adapn_gather.cu",
        kernels / "pixels" / "pixels.cu",
        EMULATION / "kernels.cpp",
    ]
    include = ["-DIGNN_EMULATION", "-isystem", cuda_include(), "-I", EMULATION]
    return host_library(name, *flags, *include, "-x", "c++", *sources)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """plugins/ built for all architectures, with the register use of every kernel in the log."""
    tool("nvcc")
    folder = tmp_path_factory.mktemp("build")
    configure = [tool("cmake"), "-S", REPOSITORY / "plugins", "-B", folder, "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"]
    log = ""
    for command in (configure, ["cmake", "--build", folder, "--parallel", "2"]):
        completed = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        log += completed.stdout
        assert completed.returncode == 0, completed.stdout[-4000:]
    return Build(folder, log)


@pytest.fixture(scope="session")
def plugin_runner(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of plugin_runner.cpp."""
    program = tmp_path_factory.mktemp("plugin_runner") / "plugin_runner"
    source = Path(__file__).parent / "plugin_runner.cpp"
    include = ["-isystem", build.tensorrt_headers]
    command = [tool("nvcc"), "-std=c++17", "--Werror=all-warnings", *include, source, "-ldl", "-o", program]
    completed = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return program


@pytest.fixture(scope="session")
def trt(host_library: Callable[..., Path]) -> ModuleType:
    """The Python module of TensorRT-RTX.

    Its libraries may come from the wheel of ONNX Runtime's provider. The parser opens `libtensorrt_rtx.so` by that
    name, which the wheel does not have: an empty library of that name, linked to the real one, stands in.
    """
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    bindings = importlib.util.find_spec("tensorrt_rtx_bindings")
    libraries = provider_libraries()
    if bindings is None or not libraries:
        pytest.skip("TensorRT-RTX is not installed")
    core, parser = libraries
    alias = ["-x", "c++", "/dev/null", "-x", "none", "-Wl,-soname,libtensorrt_rtx.so", "-Wl,--no-as-needed", core]
    for library in (core, host_library("tensorrt_rtx_alias", *alias), parser):
        ctypes.CDLL(str(library))
    return importlib.import_module("tensorrt_rtx_bindings")

"""`ignn doctor`: say what is installed, and what to type for what is missing."""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ..backends.cuda_driver import INSTALL as CUDA_CALLS
from ..backends.gpus import list_gpus
from ..backends.plugin_library import check_plugin
from ..backends.tensorrt_library import FLAVORS, NAMES, Flavor, import_tensorrt, install_hint, provider_libraries
from ..clone import PACKAGE_FOLDER, find_clone, install_command
from ..errors import IgnnError
from ..models import bundled_models

EXTRAS = {
    "stream": (("pyvips", "pyvips-binary"), "pictures larger than memory: ignn upscale --stream"),
    "formats": (("pillow-heif", "pyjpegxl", "rawpy"), "HEIC, JPEG XL and raw files of cameras"),
    "video": (("av",), "clips: ignn upscale clip.mp4"),
    "openvino": (("openvino",), "--backend openvino"),
    "ui": (("gradio",), "the page of `ignn ui`"),
    "serve": (("nvidia-pytriton",), "ignn serve, where NVIDIA's image is not"),
    "client": (("tritonclient",), "RemoteResolver"),
    "batch": (("ray", "pyarrow", "prometheus-client"), "ignn batch: a folder or a bucket on a cluster"),
}
"""Extras beside those of ONNX Runtime: the packages they bring, and what for."""

PLUGINS = ("onnxruntime-ep-openvino", "onnxruntime-ep-webgpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13")
"""Packages of ONNX Runtime's providers that are plugins."""

CLONE_EXTRAS = {
    "train": (("torch", "onnx", "onnxscript", "tensorboard", "polygraphy"), "training, measuring and exporting"),
    "rtx": (
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt_rtx_cu13_bindings", "polygraphy"),
        "TensorRT-RTX's engines",
    ),
    "test": (("pytest", "hypothesis", "scikit-image", "pypng", "matplotlib"), "the tests"),
    "test-serve": (("tritonclient",), "the tests of the server"),
    "test-ui": (("gradio", "playwright"), "the tests of the page"),
    "bench": (("matplotlib", "ncnn", "pnnx", "openvino", "opencv-python-headless"), "the benchmarks"),
    "dev": (("ruff", "mypy", "clang-format", "types-tqdm"), "the linters of .ci/run"),
}
"""Extras of use in a clone only."""


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        what: its subject.
        found: what was found; None if it is missing.
        remedy: what it is for, and the next command to type, if it is missing.
    """

    what: str
    found: str | None
    remedy: str = ""


def main(argv: list[str]) -> int:
    """Run `ignn doctor`; return 0 whatever is missing: it finds, it does not judge."""
    description = "Say what is installed, and what to do about the rest."
    argparse.ArgumentParser(prog="ignn doctor", description=description).parse_args(argv)
    for finding in findings():
        mark = "ok  " if finding.found is not None else "--  "
        sys.stdout.write(f"{mark}{finding.what}: {finding.found or 'not found'}\n")
        if finding.found is None and finding.remedy:
            sys.stdout.write(f"      {finding.remedy}\n")
    return 0


def findings() -> Iterator[Finding]:
    """Look for everything, in the order in which one thing depends on another."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _bundled()
    yield from _onnx_runtime()
    for extra, (packages, purpose) in EXTRAS.items():
        yield _extra(extra, packages, purpose)
    gpus = list_gpus()
    device = "; ".join(f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}" for gpu in gpus)
    yield Finding("NVIDIA GPU and driver", device or None, "nvidia-smi lists none; the CPU works without.")
    yield Finding("CUDA compiler (nvcc)", _nvcc(), "Only for building the plugin: install the CUDA toolkit 12 or 13.")
    yield Finding(
        "TensorRT headers",
        _headers(),
        "Only for building the plugin: git clone --depth 1 -b v11.1 https://github.com/NVIDIA/TensorRT, then configure "
        "with -DTENSORRT_INCLUDE=TensorRT/include",
    )
    for flavor in FLAVORS:
        yield Finding(NAMES[flavor], _tensorrt(flavor), f"Only for its engines: {install_hint(flavor)}")
    yield Finding("Polygraphy", _version("polygraphy"), "Only for building engines: pip install polygraphy")
    calls = [f"{package} {version}" for package in ("pycuda", "cuda-bindings") if (version := _version(package))]
    yield Finding(
        "CUDA's calls",
        f"{calls[0]} (taken), {calls[1]}" if len(calls) > 1 else calls[0] if calls else None,
        f"Only for --backend tensorrt and tensorrt-rtx: {CUDA_CALLS}",
    )
    try:
        yield Finding("Plugin library", str(check_plugin(None)))
    except IgnnError as error:
        yield Finding("Plugin library", None, f"Only for TensorRT. {error}")
    clone = find_clone()
    yield Finding(
        "Clone of the project",
        None if clone is None else str(clone),
        "Only for training, exporting and building engines: go to its folder, and run `ignn doctor` there.",
    )
    if clone is not None:
        for extra, (packages, purpose) in CLONE_EXTRAS.items():
            yield _extra(extra, packages, purpose)


def _extra(extra: str, packages: tuple[str, ...], purpose: str) -> Finding:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, version in versions.items() if version is None]
    return Finding(
        f"Extra {extra}",
        None if missing else ", ".join(f"{package} {version}" for package, version in versions.items()),
        f"Only for {purpose}. Without {', '.join(missing)}: {install_command(extra)}",
    )


def _bundled() -> Iterator[Finding]:
    try:
        models = bundled_models()
        for model in models:
            yield Finding(f"Model {model.name}", f"{model.checked_path().name}, checksum right")
    except IgnnError as error:
        yield Finding("Bundled models", None, str(error))
        return
    if not models:
        yield Finding("Bundled models", None, "This copy ships none: give your own, --model M.onnx.")


def _onnx_runtime() -> Iterator[Finding]:
    install = f"{install_command('cpu')}, or with an NVIDIA GPU: {install_command('gpu')}"
    try:
        from ..backends.onnx_runtime import onnxruntime as ort
    except (ImportError, OSError) as error:
        yield Finding("ONNX Runtime", None, f"{install} ({error})")
        return
    providers = ", ".join(ort.get_available_providers())
    yield Finding("ONNX Runtime", f"{ort.__version__} with {providers}")
    plugins = [f"{package} {version}" for package in PLUGINS if (version := _version(package))]
    if plugins:
        yield Finding("Plugins of ONNX Runtime", ", ".join(plugins))
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) > 1:
        yield Finding("One ONNX Runtime", None, f"pip uninstall {' '.join(both)}, then {install}: they are one module.")


def _nvcc() -> str | None:
    program = shutil.which("nvcc") or next(iter(map(str, Path("/usr/local").glob("cuda*/bin/nvcc"))), None)
    text = _output([program, "--version"]) if program else None
    found = re.search(r"release ([\d.]+)", text or "")
    return f"{found.group(1)}, {program}" if found else None


def _headers() -> str | None:
    names = ("/usr/include", "/usr/local/include", "/usr/local/tensorrt/include", "/usr/include/x86_64-linux-gnu")
    for folder in map(Path, names):
        header = folder / "NvInferVersion.h"
        if header.is_file():
            text = header.read_text(errors="replace")
            numbers = [re.search(rf"(?:TRT|NV_TENSORRT)_{part}(?:_\w+)? (\d+)", text) for part in ("MAJOR", "MINOR")]
            return f"{'.'.join(number.group(1) for number in numbers if number)}, {folder}"
    return None


def _tensorrt(flavor: Flavor) -> str | None:
    """Return the version of TensorRT's Python module, and where its libraries are.

    A process of its own loads it, because loading can end the process.
    """
    module = import_tensorrt.__module__
    script = f"from {module} import import_tensorrt\nprint(import_tensorrt({flavor!r}).__version__)"
    version = _output([sys.executable, "-c", script], cwd=PACKAGE_FOLDER.parent)
    if version is None:
        return None
    libraries = provider_libraries() if flavor == "tensorrt-rtx" else []
    return version.strip() + (f", libraries in {libraries[0].parent}" if libraries else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _output(command: list[str], cwd: Path | None = None) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=cwd)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout

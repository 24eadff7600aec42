"""plugins/CMakeLists.txt: what it builds, and how the compiler takes the kernels."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from toolchain import REPOSITORY, Build, tool

from runtime.backends import plugin_library
from runtime.backends.plugin_library import build_command, find_library
from runtime.errors import BackendUnavailableError

EXPORTS = {
    f"ignn_{operator}{function}"
    for operator in ("windowed_knn", "key_statistics", "adapn_gather")
    for function in ("", "_refusal")
} | {"ignn_windowed_knn_workspace", "ignn_pixels_to_map", "ignn_map_to_pixels"}


def test_no_kernel_spills(build: Build) -> None:
    reports = re.findall(
        r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads",
        build.log,
        re.DOTALL,
    )
    architectures = {architecture for _, architecture, _, _ in reports}
    supported = subprocess.run([tool("nvcc"), "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    wanted = {f"sm_{number}" for number in (75, 80, 86, 87, 89, 90, 100, 110, 120)}
    assert architectures == wanted & set(supported.split())
    kernels = ("windowed_knn", "adapn_gather", "key_norm", "key_statistics", "pack", "pixels_to_map", "map_to_pixels")
    for kernel in kernels:
        assert any(kernel in name for name, *_ in reports), kernel
    assert [report for report in reports if report[2:] != ("0", "0")] == []


def test_gpus_without_code_of_their_own_have_intermediate_code(build: Build) -> None:
    flags = (build.folder / "CMakeFiles" / "kernels.dir" / "flags.make").read_text()
    intermediate = re.findall(r"code=compute_(\d+)", flags)
    assert "80" in intermediate
    assert max(map(int, re.findall(r"code=sm_(\d+)", flags))) == max(map(int, intermediate))


@pytest.mark.parametrize("name", ["ignn_kernels", "ignn_plugin", "ignn_plugin_static_init"])
def test_libraries_export_their_interface_and_need_no_tensorrt(build: Build, name: str) -> None:
    library = build.library(name)
    symbols = subprocess.run([tool("nm"), "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert exported == EXPORTS | (set() if name == "ignn_kernels" else {"getCreators", "setLoggerFinder"})
    needed = subprocess.run([tool("readelf"), "-d", library], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"NEEDED.*(nvinfer|tensorrt|libcuda)", needed)


def test_without_headers_only_the_kernels_are_built(tmp_path: Path) -> None:
    tool("nvcc")
    command = [
        tool("cmake"),
        "-S",
        REPOSITORY / "plugins",
        "-B",
        tmp_path,
        "-DIGNN_ARCHITECTURES=86",
        "-Dtensorrt_headers=",  # the result of the search
    ]
    configured = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert configured.returncode == 0, configured.stderr
    assert configured.stdout.count("TensorRT headers not found: building the kernels only") == 1
    targets = subprocess.run(
        ["cmake", "--build", tmp_path, "--target", "help"], capture_output=True, text=True, check=True
    )
    assert "ignn_kernels" in targets.stdout
    assert "ignn_plugin" not in targets.stdout


def test_the_code_is_formatted() -> None:
    sources = [
        path
        for folder in (REPOSITORY / "plugins", REPOSITORY / "tests" / "plugins")
        for path in folder.rglob("*")
        if path.suffix in {".h", ".cpp", ".cu"}
    ]
    assert len(sources) > 15
    style = f"--style=file:{REPOSITORY / '.clang-format'}"
    subprocess.run([tool("clang-format"), style, "--dry-run", "--Werror", *sources], check=True)


@pytest.mark.parametrize(
    ("name", "needs"),
    [("ignn_plugin", "the CUDA toolkit and TensorRT's public headers"), ("ignn_kernels", "the CUDA toolkit")],
)
def test_a_missing_library_says_how_to_build_it(tmp_path: Path, name: str, needs: str) -> None:
    with pytest.raises(BackendUnavailableError) as raised:
        find_library(name, folder=tmp_path)
    message = str(raised.value)
    assert str(tmp_path / f"lib{name}.so") in message
    assert "cmake -S plugins -B build" in message
    assert f" It needs {needs}; build it with: " in message


def test_the_build_command_is_right_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert build_command() == "cmake -S plugins -B build && cmake --build build --parallel"
    monkeypatch.chdir(tmp_path)
    build = REPOSITORY / "build"
    assert build_command() == f"cmake -S {REPOSITORY}/plugins -B {build} && cmake --build {build} --parallel"
    monkeypatch.setattr(plugin_library, "find_clone", lambda: None)
    assert "(in a clone of the project)" in build_command()
    with pytest.raises(BackendUnavailableError, match=r"An installed package has no libignn_plugin\.so"):
        find_library()


def test_a_built_library_is_found(build: Build) -> None:
    assert find_library("ignn_kernels", folder=build.folder) == build.folder / "libignn_kernels.so"


def test_the_runner_says_what_is_missing(build: Build, plugin_runner: Path) -> None:
    plugin = build.library("ignn_plugin")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([plugin_runner, *arguments], capture_output=True, text=True, check=False)

    assert "usage" in run().stderr
    files = ["q", "k", "i", "e"]
    knn = ["WindowedKnn", "1", "64", "32", "32", "fp16", "channels_last"]
    assert "cannot open shared object" in run("/nowhere.so", *knn, "5", "30", "2", *files).stderr
    refused = run(str(plugin), *knn, "50", "30", "2", *files)
    assert refused.returncode == 1
    assert "attribute 'k' is 50; it must be 1 to 16" in refused.stderr

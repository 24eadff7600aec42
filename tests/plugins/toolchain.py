"""Compilers that the plugin's tests run, and what they built. Absent ones skip by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def cuda_include() -> Path:
    folder = Path(tool("nvcc")).resolve().parent.parent / "include"
    for candidate in (folder, Path("/usr/local/cuda/include")):
        if (candidate / "cuda_fp16.h").is_file():
            return candidate
    pytest.skip("the CUDA headers (cuda_fp16.h) are not installed")


class Build(NamedTuple):
    folder: Path
    log: str

    @property
    def tensorrt_headers(self) -> Path:
        """The folder of NvInferRuntime.h that CMake found."""
        cache = (self.folder / "CMakeCache.txt").read_text()
        found = next(line.split("=", 1)[1] for line in cache.splitlines() if line.startswith("tensorrt_headers:"))
        if found.endswith("NOTFOUND"):
            pytest.skip("TensorRT's public headers are not installed")
        return Path(found)

    def library(self, name: str) -> Path:
        path = self.folder / f"lib{name}.so"
        if not path.is_file():
            pytest.skip("TensorRT's public headers are not installed, so only the kernels were built")
        return path

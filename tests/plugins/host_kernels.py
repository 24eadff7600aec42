"""Numpy in, numpy out, for the kernels built for the host (tests/plugins/emulation)."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from plugins.kernel_library import AdaPNGatherSizes, KernelLibrary, KeyStatisticsSizes, Layout, Sizes, WindowedKnnSizes

_FENCE = 0xA5


def _aligned(array: np.ndarray) -> np.ndarray:
    """Return a copy at a 64-byte boundary, as cudaMalloc would give it."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _stored(x: np.ndarray, layout: Layout) -> np.ndarray:
    return _aligned(x.transpose(0, 2, 3, 1) if layout == "channels_last" else x)


class HostKernels:
    """The kernels on host memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = KernelLibrary(path)

    def set_shared_memory(self, kibibytes: int) -> None:
        """Set the shared memory of a multiprocessor of the emulated GPU."""
        self.library.library.set_shared_memory(ctypes.c_size_t(kibibytes * 1024))

    def windowed_knn(
        self, query: np.ndarray, key: np.ndarray, *, k: int, window: int, scale: int, layout: Layout
    ) -> tuple[np.ndarray, np.ndarray]:
        N, E, H, W = query.shape
        sizes = WindowedKnnSizes.of(query.shape, query.dtype.name, layout, k=k, window=window, scale=scale)
        index = _aligned(np.full((N, H // 2, W // 2, k), -1, np.int32))
        edge = _aligned(np.full((N, k, E, H // 2, W // 2), np.nan, query.dtype))
        self._run(sizes, _stored(query, layout), _stored(key, layout), index, edge)
        return index, edge

    def key_statistics(
        self, features: np.ndarray, *, scale: int, eps: float, layout: Layout
    ) -> tuple[np.ndarray, np.ndarray]:
        N, C, H, W = features.shape
        sizes = KeyStatisticsSizes.of(features.shape, features.dtype.name, layout, scale=scale, eps=eps)
        shape = (N, H // scale // 2, W // scale // 2, C)
        mean, std = (_aligned(np.full(shape, np.nan, np.float32)) for _ in range(2))
        self._run(sizes, _stored(features, layout), mean, std)
        return mean, std

    def adapn_gather(
        self, features: np.ndarray, index: np.ndarray, *, scale: int, eps: float, layout: Layout
    ) -> np.ndarray:
        """Both kernels of AdaPN, one after the other."""
        N, C, H, W = features.shape
        statistics = self.key_statistics(features, scale=scale, eps=eps, layout=layout)
        sizes = AdaPNGatherSizes.of(features.shape, features.dtype.name, layout, scale=scale, eps=eps)
        output = _stored(np.full((N, C, scale * H, scale * W), np.nan, features.dtype), layout)
        self._run(sizes, _stored(features, layout), *statistics, _aligned(index), output)
        return output.transpose(0, 3, 1, 2) if layout == "channels_last" else output

    def _run(self, sizes: Sizes, *tensors: np.ndarray) -> None:
        refusal = self.library.refusal(sizes)
        assert refusal is None, refusal
        size = self.library.workspace_bytes(sizes)
        workspace = _aligned(np.full(size + 256, _FENCE, np.uint8))
        self.library.launch(sizes, *(x.ctypes.data for x in tensors), workspace=workspace.ctypes.data, stream=0)
        assert (workspace[size:] == _FENCE).all(), "written past the end of the workspace"

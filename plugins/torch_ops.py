"""The CUDA kernels as PyTorch's CUDA implementation of the three graph operators of train/ops.py.

`register()` once, and `torch.ops.ignn.windowed_knn`, `key_statistics` and `adapn_gather` run the kernels on CUDA
tensors; gradients stay those of train/ops.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import train.ops  # noqa: F401  (defines the operators)
from plugins.kernel_library import (
    AdaPNGatherSizes,
    KernelLibrary,
    KeyStatisticsSizes,
    Layout,
    Sizes,
    Type,
    WindowedKnnSizes,
)
from runtime.backends.plugin_library import find_library

_TYPES: dict[torch.dtype, Type] = {torch.float32: "float32", torch.float16: "float16"}


def register(library: Path | None = None) -> None:
    """Register the kernels of `library` (default: `find_library("ignn_kernels")`) for CUDA tensors.

    Raises:
        BackendUnavailableError: if the library is not built.
    """
    kernels = KernelLibrary(library or find_library("ignn_kernels"))

    def windowed_knn(query: Tensor, key: Tensor, k: int, window: int, scale: int) -> tuple[Tensor, Tensor]:
        N, E, H, W = query.shape
        expected = (N, E, H // scale, W // scale)
        if key.shape != expected or key.dtype != query.dtype or key.device != query.device:
            raise ValueError(
                f"Invalid key map {tuple(key.shape)} {key.dtype} on {key.device}. A query map {tuple(query.shape)} "
                f"{query.dtype} on {query.device} at scale {scale} needs {expected}, same type and device."
            )
        layout = _layout(query, key)
        query, key = _dense(query, layout), _dense(key, layout)
        sizes = WindowedKnnSizes.of((N, E, H, W), _type(query), layout, k=k, window=window, scale=scale)
        index = query.new_empty((N, H // 2, W // 2, k), dtype=torch.int32)
        edge = torch.empty((N, k, E, H // 2, W // 2), dtype=query.dtype, device=query.device)
        _launch(kernels, sizes, query, key, index, edge)
        return index, edge

    def key_statistics(features: Tensor, scale: int, eps: float) -> tuple[Tensor, Tensor]:
        N, C, H, W = features.shape
        layout = _layout(features)
        features = _dense(features, layout)
        sizes = KeyStatisticsSizes.of((N, C, H, W), _type(features), layout, scale=scale, eps=eps)
        shape = (N, H // scale // 2, W // scale // 2, C)
        mean, std = (torch.empty(shape, dtype=torch.float32, device=features.device) for _ in range(2))
        _launch(kernels, sizes, features, mean, std)
        return mean, std

    def adapn_gather(
        features: Tensor, key_mean: Tensor, key_std: Tensor, index: Tensor, scale: int, eps: float
    ) -> Tensor:
        N, C, H, W = features.shape
        if index.shape != (N, H // 2, W // 2) or index.dtype != torch.int32 or index.device != features.device:
            raise ValueError(
                f"Invalid index {tuple(index.shape)} {index.dtype} on {index.device}. Features of shape "
                f"{tuple(features.shape)} on {features.device} need int32 {(N, H // 2, W // 2)} there."
            )
        shape = (N, H // scale // 2, W // scale // 2, C)
        for x in (key_mean, key_std):
            if x.shape != shape or x.dtype != torch.float32 or x.device != features.device:
                raise ValueError(
                    f"Invalid statistics {tuple(x.shape)} {x.dtype} on {x.device}. Features of shape "
                    f"{tuple(features.shape)} on {features.device} at scale {scale} need float32 {shape} there."
                )
        layout = _layout(features)
        features, key_mean, key_std, index = _dense(features, layout), *map(_dense, (key_mean, key_std, index))
        sizes = AdaPNGatherSizes.of((N, C, H, W), _type(features), layout, scale=scale, eps=eps)
        output = torch.empty(
            (N, C, scale * H, scale * W),
            dtype=features.dtype,
            device=features.device,
            memory_format=_memory_format(layout),
        )
        _launch(kernels, sizes, features, key_mean, key_std, index, output)
        return output

    torch.library.register_kernel("ignn::windowed_knn", "cuda", windowed_knn)
    torch.library.register_kernel("ignn::key_statistics", "cuda", key_statistics)
    torch.library.register_kernel("ignn::adapn_gather", "cuda", adapn_gather)


def _launch(kernels: KernelLibrary, sizes: Sizes, *tensors: Tensor) -> None:
    refusal = kernels.refusal(sizes)
    if refusal is not None:
        raise ValueError(f"The CUDA kernel cannot take maps of shape {tuple(tensors[0].shape)}: {refusal}.")
    device = tensors[0].device
    with torch.cuda.device(device):
        workspace = torch.empty(kernels.workspace_bytes(sizes), dtype=torch.uint8, device=device)
        kernels.launch(
            sizes,
            *(tensor.data_ptr() for tensor in tensors),
            workspace=workspace.data_ptr(),
            stream=torch.cuda.current_stream().cuda_stream,
        )


def _type(tensor: Tensor) -> Type:
    if tensor.dtype not in _TYPES:
        raise ValueError(f"Invalid type {tensor.dtype}. The CUDA kernels take torch.float32 and torch.float16.")
    return _TYPES[tensor.dtype]


def _layout(*maps: Tensor) -> Layout:
    channels_last = all(x.is_contiguous(memory_format=torch.channels_last) for x in maps) and maps[0].shape[1] % 8 == 0
    return "channels_last" if channels_last else "linear"


def _memory_format(layout: Layout) -> torch.memory_format:
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def _dense(tensor: Tensor, layout: Layout = "linear") -> Tensor:
    """Return the tensor without gaps in its layout, at an address the kernels' 16-byte loads may use."""
    memory_format = _memory_format(layout)
    tensor = tensor.contiguous(memory_format=memory_format)
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone(memory_format=memory_format)

"""Time and memory of the three kernels against their floors and against plain PyTorch.

    python -m benchmarks.gpu.kernels [--library build/libignn_kernels.so]

Floors: WindowedKnn, its FLOPs at the rate of a large matrix product; KeyStatistics and AdaPNGather, their bytes at the
rate of a large copy; both rates are measured first. Writes benchmarks/gpu/results/kernels_<gpu>.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import plain
from benchmarks.gpu.report import require_gpu, write
from plugins.torch_ops import register
from runtime.cli import run_command

E, C, K, WINDOW, EPS = 64, 256, 5, 30, 1e-5
SIZES = [(256, 256), (540, 960)]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def time_ms(call: Callable[[], Any], *, repeats: int = 20) -> dict[str, float]:
    """Return the 5th, 50th and 95th percentile of a call's milliseconds on the GPU, after three calls unmeasured."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    quantiles = torch.tensor(times).quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    return dict(zip(("p05", "p50", "p95"), quantiles, strict=True))


def measure(call: Callable[[], Any], *, repeats: int = 20) -> dict[str, Any]:
    """Return a call's time, and its peak memory beyond what was allocated before it (outputs included)."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        return {"ms": time_ms(call, repeats=repeats), "peak_bytes": peak}
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"out_of_memory": True, "peak_bytes": torch.cuda.max_memory_allocated() - before}


def rates() -> dict[str, float]:
    """Return the measured FLOP/s of an fp16 matrix product and the bytes/s (read + written) of a copy."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    matmul_ms = time_ms(lambda: a @ a)["p50"]
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_ms = time_ms(lambda: target.copy_(source))["p50"]
    return {"fp16_flops": 2 * 8192**3 / matmul_ms * 1e3, "copy_bytes": 2 * 2**30 / copy_ms * 1e3}


def windowed_knn_flops(H: int, W: int, scale: int) -> int:
    """Return the FLOPs of the distances that are needed: every query against the keys of its own window."""
    n1, n2 = H // scale // 2, W // scale // 2
    keys = n1 * n2 if max(n1, n2) <= WINDOW else min(WINDOW, n1, n2) ** 2
    return 2 * 9 * E * keys * (H // 2) * (W // 2)


def key_statistics_bytes(H: int, W: int, scale: int, element: int) -> int:
    """Return the bytes of reading the features once and writing the statistics once."""
    return element * C * H * W + 2 * 4 * C * (H // scale // 2) * (W // scale // 2)


def adapn_gather_bytes(H: int, W: int, scale: int, element: int) -> int:
    """Return the bytes of reading features, statistics and index once and writing the output once."""
    written = element * C * H * W * scale**2
    return key_statistics_bytes(H, W, scale, element) + written + 4 * (H // 2) * (W // 2)


def own_keys(H: int, W: int, scale: int) -> Tensor:
    """Return for every query the key at its own place, which is the best case for the caches."""
    rows = (torch.arange(H // 2) // scale).clamp(max=H // scale // 2 - 1)
    columns = (torch.arange(W // 2) // scale).clamp(max=W // scale // 2 - 1)
    return (rows[:, None] * (W // scale // 2) + columns).int()[None].cuda()


def compare(kernel: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Return how much faster and smaller a kernel is; None where the reference ran out of memory."""
    faster = reference["ms"]["p50"] / kernel["ms"]["p50"] if "ms" in reference else None
    return {"times_faster": faster, "times_less_memory": reference["peak_bytes"] / max(kernel["peak_bytes"], 1)}


def random_map(channels: int, H: int, W: int, dtype: torch.dtype) -> Tensor:
    """Return normal random numbers on the GPU, (1, channels, H, W)."""
    return torch.randn(1, channels, H, W, device="cuda").to(dtype)


def run_windowed_knn(H: int, W: int, scale: int, dtype: torch.dtype, rate: dict[str, float]) -> list[dict[str, Any]]:
    """Return WindowedKnn's results for one map, one for each memory layout."""
    query, key = random_map(E, H, W, dtype), random_map(E, H // scale, W // scale, dtype)
    reference = measure(lambda: plain.windowed_knn(query, key, K, WINDOW, scale), repeats=5)
    flops = windowed_knn_flops(H, W, scale)
    floor = flops / rate["fp16_flops"] * 1e3
    results = []
    for layout in LAYOUTS:
        q, k = query.contiguous(memory_format=layout), key.contiguous(memory_format=layout)
        kernel = measure(partial(torch.ops.ignn.windowed_knn, q, k, K, WINDOW, scale))
        results.append(
            {"operator": "WindowedKnn", "height": H, "width": W, "scale": scale, "dtype": str(dtype)}
            | {"layout": str(layout), **kernel, "flops": flops, "floor_ms": floor}
            | {"times_floor": kernel["ms"]["p50"] / floor, "target_times_floor": 3.0}
            | {"plain": reference, **compare(kernel, reference)}
        )
    return results


def run_key_statistics(H: int, W: int, scale: int, dtype: torch.dtype, rate: dict[str, float]) -> list[dict[str, Any]]:
    """Return KeyStatistics' results for one map, one for each memory layout; a network calls it once."""
    features = random_map(C, H, W, dtype)
    moved = key_statistics_bytes(H, W, scale, features.element_size())
    floor = moved / rate["copy_bytes"] * 1e3
    results = []
    for layout in LAYOUTS:
        x = features.contiguous(memory_format=layout)
        kernel = measure(partial(torch.ops.ignn.key_statistics, x, scale, EPS))
        results.append(
            {"operator": "KeyStatistics", "height": H, "width": W, "scale": scale, "dtype": str(dtype)}
            | {"layout": str(layout), **kernel, "bytes": moved, "floor_ms": floor}
            | {"times_floor": kernel["ms"]["p50"] / floor, "target_times_floor": 1.5}
        )
    return results


def run_adapn_gather(H: int, W: int, scale: int, dtype: torch.dtype, rate: dict[str, float]) -> list[dict[str, Any]]:
    """Return AdaPNGather's results for one map, one for each memory layout and choice of neighbors."""
    query, key = random_map(E, H, W, dtype), random_map(E, H // scale, W // scale, dtype)
    found, _ = torch.ops.ignn.windowed_knn(query, key, K, WINDOW, scale)
    neighbors = {"random in window": found[..., 0].contiguous(), "own key": own_keys(H, W, scale)}
    features = random_map(C, H, W, dtype)
    reference = measure(lambda: plain.adapn_gather(features, neighbors["own key"], scale, EPS), repeats=5)
    moved = adapn_gather_bytes(H, W, scale, features.element_size())
    floor = moved / rate["copy_bytes"] * 1e3
    results = []
    for layout in LAYOUTS:
        x = features.contiguous(memory_format=layout)
        statistics = torch.ops.ignn.key_statistics(x, scale, EPS)
        for name, index in neighbors.items():
            kernel = measure(partial(torch.ops.ignn.adapn_gather, x, *statistics, index, scale, EPS))
            results.append(
                {"operator": "AdaPNGather", "height": H, "width": W, "scale": scale, "dtype": str(dtype)}
                | {"layout": str(layout), "neighbors": name, **kernel, "bytes": moved, "floor_ms": floor}
                | {"times_floor": kernel["ms"]["p50"] / floor, "target_times_floor": 1.5}
                | {"plain": reference, **compare(kernel, reference)}
            )
    return results


def register_kernels(argv: list[str] | None, description: str | None) -> None:
    """Register the kernels of the library that the command line names; raise where there is no GPU."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="libignn_kernels.so; default: in build/")
    arguments = parser.parse_args(argv)
    require_gpu()
    register(arguments.library)


def main(argv: list[str] | None = None) -> int:
    """Measure all kernels at all sizes, scales and types, and write the results; return the exit status."""
    register_kernels(argv, __doc__)
    torch.manual_seed(0)
    rate = rates()
    results = []
    for H, W in SIZES:
        for scale in (2, 3):
            for dtype in (torch.float16, torch.float32):
                results += run_windowed_knn(H, W, scale, dtype, rate)
                results += run_key_statistics(H, W, scale, dtype, rate)
                results += run_adapn_gather(H, W, scale, dtype, rate)
    write("kernels", {"rates": rate, "operators": results})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.kernels", main))

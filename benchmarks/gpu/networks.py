"""Whole networks in PyTorch with the kernels: time and memory, against their convolutions and the plain way.

    python -m benchmarks.gpu.networks [--library build/libignn_kernels.so]

Convolutions in float16 (autocast), channels last, replayed as a CUDA graph, in turns with the same network's
convolutions alone; and then, both without a CUDA graph, beside the version that materialises patches
(`benchmarks.baseline`), with the largest picture that it can do. Writes benchmarks/gpu/results/networks_<gpu>.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import subjects
from benchmarks.baseline import straightforward
from benchmarks.gpu.kernels import compare, measure, register_kernels
from benchmarks.gpu.report import write
from benchmarks.graph_overhead import convolutions
from runtime.cli import run_command
from runtime.pictures.psnr import psnr_db
from train import IGNN

SIZES = [(270, 480), (540, 960)]
TARGET_OVER_CONVOLUTIONS, TARGET_TIMES_FASTER = 1.15, 10.0
ROUNDS = 3

Network = Callable[[Tensor], Tensor]


def in_half(network: Network) -> Network:
    """Return the network with its convolutions in float16; weights are cast in each call, as a graph replays it."""

    def run(lr: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(lr.device.type, torch.float16, cache_enabled=False):
            return network(lr).float()

    return run


def as_cuda_graph(network: Network, lr: Tensor) -> Callable[[], Tensor]:
    """Capture a call of the network; what is returned replays it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # choosing algorithms, done once, must not be captured
        for _ in range(3):
            network(lr)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = network(lr)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def photograph(height: int, width: int) -> Tensor:
    """Return the sample photograph on the GPU, (1, 3, height, width) float32 0..255, channels last."""
    lr = torch.from_numpy(subjects.lr_input(height, width)).cuda()
    return lr.contiguous(memory_format=torch.channels_last)


def psnr(image: Tensor, reference: Tensor) -> float:
    """Return the PSNR of two pictures in dB, peak 255."""
    return psnr_db(image.cpu().numpy(), reference.cpu().numpy())


def measure_network(name: str, net: IGNN, height: int, width: int) -> dict[str, Any]:
    """Return one network's row at one size."""
    lr = photograph(height, width)
    with torch.inference_mode():
        expected = net(lr)
    ours = measure(partial(in_half(net), lr))  # without a CUDA graph, whose memory is allocated once and kept
    replays = {"ours": as_cuda_graph(in_half(net), lr)}
    difference = psnr(replays["ours"](), expected)
    replays["convolutions"] = as_cuda_graph(in_half(partial(convolutions, net)), lr)
    rounds = [{key: measure(call)["ms"]["p50"] for key, call in replays.items()} for _ in range(ROUNDS)]
    ms = {key: sorted(each[key] for each in rounds)[ROUNDS // 2] for key in replays}
    plain = measure(partial(in_half(partial(straightforward, net)), lr), repeats=5)
    return {
        "network": name,
        "height": height,
        "width": width,
        "ms": ms["ours"],
        "megapixels_per_second": lr.shape[2] * lr.shape[3] * net.config.scale**2 / 1e3 / ms["ours"],
        "convolutions_ms": ms["convolutions"],
        "times_convolutions": ms["ours"] / ms["convolutions"],
        "target_times_convolutions": TARGET_OVER_CONVOLUTIONS,
        "rounds": rounds,
        "without_cuda_graph": ours,
        "psnr_to_float32_db": difference,
        "plain": plain,
        **compare(ours, plain),
        "target_times_faster": TARGET_TIMES_FASTER,
    }


def largest_plain_side(net: IGNN) -> int:
    """Return the side of the largest square picture, in steps of 64 pixels, that the plain way can do."""
    side = 64
    while "out_of_memory" not in measure(
        partial(in_half(partial(straightforward, net)), photograph(side + 64, side + 64)), repeats=1
    ):
        side += 64
    return side


def main(argv: list[str] | None = None) -> int:
    """Measure both networks at all sizes and write the results; return the exit status."""
    register_kernels(argv, __doc__)
    torch.backends.cudnn.benchmark = True
    results = []
    for name in ("ignn-s", "ignn"):
        net = subjects.network(name).cuda()
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        rows = [measure_network(name, net, *size) for size in SIZES]
        results.append({"network": name, "rows": rows, "largest_plain_side": largest_plain_side(net)})
    write("networks", results)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.networks", main))

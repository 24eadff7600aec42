"""Print what each graph kernel takes of a multiprocessor, and what it moves and computes: no GPU is needed.

    python -m benchmarks.gpu.occupancy [sm_80 sm_90 sm_120]

Compiles the kernels and reads their registers from ptxas. The blocks that fit on a multiprocessor
follow from them, from the shared memory and from the threads. docs/operators.md shows the tables.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from runtime.cli import run_command
from runtime.errors import UsageError

KERNEL_FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "kernels"
SOURCES = [KERNEL_FOLDER / name / f"{name}.cu" for name in ("windowed_knn", "key_statistics", "adapn_gather")]
SHARED_KB = {"sm_75": 64, "sm_80": 164, "sm_86": 100, "sm_89": 100, "sm_90": 228, "sm_100": 228, "sm_120": 100}
"""Shared memory of a multiprocessor, by architecture."""
THREADS = {"sm_75": 1024, "sm_80": 2048, "sm_86": 1536, "sm_89": 1536, "sm_90": 2048, "sm_100": 2048, "sm_120": 1536}
"""Threads of a multiprocessor, by architecture."""
REGISTERS, REGISTER_UNIT = 65536, 256
"""Registers of a multiprocessor; a warp takes a multiple of 256."""
RESERVED = 1024
"""Bytes of shared memory that the system takes for each block."""


class Kernel(NamedTuple):
    """One instance of a kernel.

    Attributes:
        name: for the table.
        symbol: part of its mangled name.
        threads: of a block.
        shared_bytes: dynamic shared memory of a block.
    """

    name: str
    symbol: str
    threads: int
    shared_bytes: int


def knn_shared(channels: int, element: int) -> int:
    """Return the bytes of a tile of 4 x 16 queries, a pass of 2 x 40 keys and their norms (tile.h)."""
    return (9 * 34 + 5 * 82) * channels * element + 2 * 40 * 4


def gather_shared(channels: int) -> int:
    """Return the bytes of gain and shift of 5 x 5 queries, and where their neighbors lie (adapn_gather.cu)."""
    return 25 * (channels + 2) * 8 + 2 * 25 * 4


KERNELS = (
    Kernel("WindowedKnn fp16, 32 channels at once", "windowed_knnI6__halfLi32ELi5E", 128, knn_shared(32, 2)),
    Kernel("WindowedKnn fp16, 64 channels at once", "windowed_knnI6__halfLi64ELi5E", 128, knn_shared(64, 2)),
    Kernel("WindowedKnn fp32, 16 channels at once", "windowed_knnIfLi16ELi5E", 128, knn_shared(16, 4)),
    Kernel("KeyStatistics fp16, NHWC, s = 2", "key_statisticsI.*ChannelsLastI6__halfEELi2E", 256, 0),
    Kernel("KeyStatistics fp32, NHWC, s = 2", "key_statisticsI.*ChannelsLastIfEELi2E", 256, 0),
    Kernel("AdaPNGather fp16, NHWC, s = 2", "adapn_gatherI.*ChannelsLastI6__halfEELi2E", 256, gather_shared(64)),
    Kernel("AdaPNGather fp32, NHWC, s = 2", "adapn_gatherI.*ChannelsLastIfEELi2E", 256, gather_shared(64)),
)


def registers(log: str) -> dict[tuple[str, str], int]:
    """Return registers by (architecture, mangled name) from what ptxas writes with -v."""
    pattern = r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?Used (\d+) registers"
    return {(architecture, name): int(used) for name, architecture, used in re.findall(pattern, log, re.DOTALL)}


def compile_kernels(architectures: list[str]) -> str:
    """Compile the kernels for each architecture; return what ptxas writes."""
    log = ""
    for architecture in architectures:
        for source in SOURCES:
            command = ["nvcc", "-std=c++17", "-O3", "-cubin", f"-arch={architecture}", "-Xptxas=-v", str(source)]
            try:
                with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
                    done = subprocess.run(
                        [*command, "-o", cubin.name],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        check=False,
                    )
            except OSError as error:
                sys.exit(
                    f"nvcc cannot be run ({error}). Install CUDA's toolkit 13, and add its folder bin to the path."
                )
            if done.returncode != 0:
                sys.exit(f"nvcc cannot compile {source.name} for {architecture}:\n{done.stdout.strip()}")
            log += done.stdout
    return log


def blocks(kernel: Kernel, used: int, architecture: str) -> int:
    """Return how many blocks of a kernel with `used` registers a thread fit on a multiprocessor."""
    per_warp = -(-32 * used // REGISTER_UNIT) * REGISTER_UNIT
    by_registers = REGISTERS // per_warp // (kernel.threads // 32)
    by_shared = SHARED_KB[architecture] * 1024 // (kernel.shared_bytes + RESERVED)
    return min(by_registers, by_shared, THREADS[architecture] // kernel.threads)


def occupancy_table(log: str) -> list[str]:
    """Return the lines of a Markdown table: registers / blocks per multiprocessor, by kernel and architecture."""
    found = registers(log)
    built = [name for name in SHARED_KB if any(architecture == name for architecture, _ in found)]
    lines = [
        f"| kernel | shared memory | {' | '.join(built)} |",
        "|---|" + "---|" * (len(built) + 1),
    ]
    for kernel in KERNELS:
        cells = []
        for architecture in built:
            (used,) = (
                n for (where, name), n in found.items() if where == architecture and re.search(kernel.symbol, name)
            )
            cells.append(f"{used} / {blocks(kernel, used, architecture)}")
        lines.append(f"| {kernel.name} | {kernel.shared_bytes / 1024:.1f} KB | {' | '.join(cells)} |")
    return lines


def work_table() -> list[str]:
    """Return the lines of a Markdown table: bytes and FLOPs per pixel of the query map, at the paper's sizes."""
    channels, neighbors, window = 64, 5, 30
    passes, pixels = 16, 4 * 16 * 4  # of the union of the windows, 31 x 40 keys; of a tile of queries

    def knn(name: str, element: int, chunk: int) -> str:
        floor = channels * element * (1 + 1 / 4 + neighbors / 4) + neighbors
        query, key = 9 * 33 * channels * element, 81 * channels * element  # a tile's pixels; a row of a pass
        one_chunk = query + 5 * key + (passes - 1) * 4 * key  # queries and the rows that two passes share stay
        loaded = one_chunk if chunk == channels else passes * (query + 5 * key)
        flops = 4.5 * window**2 * channels
        return (
            f"| WindowedKnn {name}, {chunk} channels at once | {floor:,.0f} | {loaded / pixels:,.0f} | {flops:,.0f} |"
        )

    features, half = 256, 2
    statistics = features * 8 // 16  # mean and deviation (2 floats) for every 16 pixels
    return [
        "| kernel | bytes, at least | bytes from L2 to shared memory | FLOPs |",
        "|---|---|---|---|",
        knn("fp16", 2, 32),
        knn("fp16", 2, 64),
        knn("fp32", 4, 16),
        f"| KeyStatistics fp16, s = 2 | {features * half + statistics:,} | none | {features * 9:,} |",
        f"| AdaPNGather fp16, s = 2 | {features * half * 5 + statistics + 1:,} | none | {features * (18 + 18):,} |",
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", metavar="sm_80", help=f"default: {', '.join(SHARED_KB)}")
    architectures = parser.parse_args(argv).architectures or list(SHARED_KB)
    if unknown := set(architectures) - set(SHARED_KB):
        names = ", ".join(sorted(unknown))
        raise UsageError(f"Invalid architecture ({names}). Supported values are {', '.join(SHARED_KB)}.")
    sys.stdout.write("\n".join([*occupancy_table(compile_kernels(architectures)), "", *work_table(), ""]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.occupancy", main))

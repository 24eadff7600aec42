"""Write results/README.md: the kernels' and networks' results of every GPU as tables.

python -m benchmarks.gpu.table
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.report import RESULTS
from runtime.atomic import write_text
from runtime.cli import run_command

_LAYOUTS = {"torch.contiguous_format": "NCHW", "torch.channels_last": "NHWC"}


def _times(value: float | None) -> str:
    return "out of memory" if value is None else f"{value:.1f} x"


def _kernels(results: dict[str, Any]) -> Iterator[str]:
    rates = results["rates"]
    yield (
        f"The kernels at 256 channels. The floor is WindowedKnn's FLOPs at the rate of a large fp16 matrix product "
        f"({rates['fp16_flops'] / 1e12:.0f} TFLOP/s, measured), or the others' bytes at the rate of a large copy "
        f"({rates['copy_bytes'] / 1e12:.2f} TB/s, measured)."
    )
    yield ""
    yield "| kernel | LR | scale | type, layout | ms | of its floor | faster than PyTorch | its memory less |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in results["operators"]:
        name = row["operator"] + (f", {row['neighbors']}" if "neighbors" in row else "")
        plain = (_times(row["times_faster"]), _times(row["times_less_memory"])) if "plain" in row else ("", "")
        yield (
            f"| {name} | {row['width']} x {row['height']} | {row['scale']} "
            f"| {row['dtype'].removeprefix('torch.')}, {_LAYOUTS[row['layout']]} | {row['ms']['p50']:.3f} "
            f"| {row['times_floor']:.1f} x (target {row['target_times_floor']}) | {plain[0]} | {plain[1]} |"
        )


def _networks(results: list[dict[str, Any]]) -> Iterator[str]:
    yield (
        "Whole networks, x2, in PyTorch in fp16 with the kernels, as one CUDA graph; beside them the convolutions "
        "alone, and the straightforward version in plain PyTorch, which materialises patches."
    )
    yield ""
    yield "| network | LR | ms | output MP/s | of its convolutions | faster than straightforward | less memory |"
    yield "|---|---|---|---|---|---|---|"
    for network in results:
        for row in network["rows"]:
            yield (
                f"| {row['network']} | {row['width']} x {row['height']} | {row['ms']:.1f} "
                f"| {row['megapixels_per_second']:.1f} | {row['times_convolutions']:.2f} x "
                f"(target {row['target_times_convolutions']}) | {_times(row['times_faster'])} "
                f"| {_times(row['times_less_memory'])} |"
            )


def page() -> str:
    """Return the page of all results that there are."""
    lines = ["# On GPUs", "", "Written by `python -m benchmarks.gpu.table` from the JSON files beside it."]
    for path in sorted(RESULTS.glob("*.json")):
        kind, _, gpu = path.stem.partition("_")
        found = json.loads(path.read_text(encoding="utf-8"))
        versions = f"PyTorch {found['environment']['torch']}"
        lines += [
            "",
            f"## {gpu.replace('_', ' ')}: {kind}",
            "",
            f"{versions}, commit {found['environment']['commit'][:7]}.",
            "",
        ]
        if kind == "kernels":
            lines += _kernels(found["results"])
        elif kind == "networks":
            lines += _networks(found["results"])
        elif kind == "correctness":
            counts = found["results"]["counts"]
            lines.append(", ".join(f"{count} tests {outcome}" for outcome, count in counts.items()) + ".")
        else:
            lines.append(f"[{path.name}]({path.name})")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    write_text(RESULTS / "README.md", page())
    sys.stdout.write(f"{RESULTS / 'README.md'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.table", main))

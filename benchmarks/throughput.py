"""Images and megapixels per second, and the time of each stage.

Stages: decode (PNG file to pixels), to_device (pixels to the network's float32 planes, where the network runs),
compute, to_host (the network's planes to pixels in host memory), encode (pixels to a PNG file). Each case differs from
the first in one thing: size, batch, model, backend, precision or threads.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from runtime.commands.measure import compare

STAGES = ("decode", "to_device", "compute", "to_host", "encode")
_BASE: dict[str, Any] = {
    "model": "ignn-s",
    "height": 256,
    "width": 256,
    "batch": 1,
    "backend": "ONNX Runtime",
    "precision": "fp32",
}
_VARIED: list[dict[str, Any]] = [
    {},
    {"height": 64, "width": 64},
    {"height": 128, "width": 128},
    {"height": 512, "width": 512},
    *({"height": 64, "width": 64, "batch": batch} for batch in (2, 4, 8)),
    {"threads": 1},
    {"backend": "PyTorch"},
    {"precision": "fp16", "height": 64, "width": 64},
    {"model": "ignn", "height": 64, "width": 64},
    {"model": "ignn", "height": 128, "width": 128},
]


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    varied: list[dict[str, Any]] = [{}, {"batch": 2}, {"threads": 2}, {"backend": "PyTorch"}] if quick else _VARIED
    base: dict[str, Any] = {
        **_BASE,
        **({"model": "tiny", "height": 32, "width": 32} if quick else {}),
        "threads": threads,
    }
    found = []
    for difference in varied:
        config = {**base, **difference, "budget_s": 1 if quick else 20}
        if config["backend"] == "ONNX Runtime":
            config["model_sha256"] = subjects.sha256(subjects.onnx_file(config["model"], config["precision"]))
        if config not in found:
            found.append(config)
    return found


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration."""
    arguments = {key: config[key] for key in ("height", "width", "threads", "batch")}
    if config["backend"] == "PyTorch":
        arguments |= {"factory": subjects.pytorch_network, "name": config["model"]}
    else:
        model = subjects.onnx_file(config["model"], config["precision"])
        arguments |= {"factory": subjects.onnx_runtime_network, "model": str(model)}
    measurements = compare({"pipeline": (pipeline, arguments)}, budget_s=config["budget_s"], max_rounds=100)
    found = measurements["alternatives"]["pipeline"]
    images = config["batch"] / found["wall_s"]["p50"]
    computed = config["batch"] / found["stages_s"]["compute"]["p50"]
    measurements["derived"] = {
        "images_per_s": images,
        "output_megapixels_per_s": images * 4 * config["height"] * config["width"] / 1e6,
        "compute_output_megapixels_per_s": computed * 4 * config["height"] * config["width"] / 1e6,
    }
    return measurements


def pipeline(
    factory: Callable[..., Callable[[NDArray], NDArray]], height: int, width: int, batch: int, **arguments: Any
) -> Callable[[], dict[str, float]]:
    """Return a call that takes PNG files in memory to PNG files in memory and gives each stage's seconds."""
    from PIL import Image

    run_network = factory(**arguments)

    def encoded(pixels: NDArray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    files = [encoded(subjects.photograph(height, width))] * batch

    def run() -> dict[str, float]:
        times = [time.perf_counter()]
        images = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        times.append(time.perf_counter())
        lr = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), dtype=np.float32)
        times.append(time.perf_counter())
        sr = run_network(lr)
        times.append(time.perf_counter())
        pixels = np.ascontiguousarray(np.clip(np.rint(sr), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
        times.append(time.perf_counter())
        for image in pixels:
            encoded(image)
        times.append(time.perf_counter())
        return {name: b - a for name, a, b in zip(STAGES, times[:-1], times[1:], strict=True)}

    return run


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return no targets: none are set for throughput."""
    return []


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        config, found = row["config"], row["measurements"]["alternatives"]["pipeline"]
        lines.append(
            {
                "model": config["model"],
                "LR": f"{config['height']} x {config['width']}",
                **{key: config[key] for key in ("batch", "backend", "precision", "threads")},
                "images/s": row["measurements"]["derived"]["images_per_s"],
                "MP/s out": row["measurements"]["derived"]["output_megapixels_per_s"],
                **{f"{p}, s": found["wall_s"][p] for p in ("p50", "p90", "p99")},
                "samples": found["rounds"],
                **{f"{stage}, ms": found["stages_s"][stage]["p50"] * 1e3 for stage in STAGES},
            }
        )
    return lines

"""The network against a straightforward PyTorch version that does what the released code does.

That version materialises the patches of all neighbors at once, spreads edge labels over high resolution and runs both
edge-conditioned networks there (`straightforward` below). Same weights, same photograph, in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from benchmarks.results import target
from runtime.commands.measure import Factory, Worker, compare

if TYPE_CHECKING:
    from torch import Tensor

    from train import IGNN

BASELINE = "straightforward PyTorch"
OURS = "ONNX Runtime"
LARGEST_DIFFERENCE = 1e-2
"""Of 0..255, between the two pictures."""


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    models = [("tiny", 48)] if quick else [("ignn-s", 128), ("ignn", 128)]
    return [
        {"model": name, "height": size, "width": size, "threads": threads, "budget_s": 1 if quick else 120}
        | {"model_sha256": subjects.sha256(subjects.onnx_file(name, random_weights=True))}
        for name, size in models
    ]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure one configuration."""
    size = {key: config[key] for key in ("height", "width", "threads")}
    alternatives: dict[str, tuple[Factory, dict[str, Any]]] = {
        BASELINE: (straightforward_pytorch, {**size, "name": config["model"]}),
        "PyTorch": (subjects.pytorch, {**size, "name": config["model"]}),
        OURS: (
            subjects.onnx_runtime,
            {**size, "model": str(subjects.onnx_file(config["model"], random_weights=True))},
        ),
    }

    def differences(workers: Mapping[str, Worker]) -> dict[str, float]:
        expected = workers[BASELINE].output()
        return {
            f"difference of {name}": float(np.abs(worker.output() - expected).max())
            for name, worker in workers.items()
            if name != BASELINE
        }

    return compare(alternatives, against=BASELINE, outputs=differences, budget_s=config["budget_s"])


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the targets of the full-size network, with what was measured."""
    found = []
    for row in rows:
        if row["config"]["model"] == "ignn-s":
            continue  # for the table alone
        name = f"{row['config']['model']}, {row['config']['height']} x {row['config']['width']}"
        ratio = row["measurements"]["ratios"][OURS]
        found.append(target(f"{name}: time over the straightforward version's", ratio["wall"], 1 / 3.3))
        found.append(target(f"{name}: memory over the straightforward version's", ratio["peak_memory"], 1 / 5))
        difference = row["measurements"]["derived"][f"difference of {OURS}"]
        found.append(target(f"{name}: largest difference of the pictures", difference, LARGEST_DIFFERENCE, "of 255"))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        config, found = row["config"], row["measurements"]
        for name, numbers in found["alternatives"].items():
            ratio = found["ratios"].get(name, {"wall": 1.0, "cpu": 1.0, "peak_memory": 1.0})
            lines.append(
                {
                    "model": config["model"],
                    "LR": f"{config['height']} x {config['width']}",
                    "version": name,
                    "time, s": numbers["wall_s"]["p50"],
                    "times faster": 1 / ratio["wall"],
                    "by CPU time": 1 / ratio["cpu"],
                    "peak memory, MB": numbers["peak_bytes"] / 1e6,
                    "times less": 1 / ratio["peak_memory"],
                    "difference": found["derived"].get(f"difference of {name}", ""),
                }
            )
    return lines


def straightforward_pytorch(name: str, height: int, width: int, threads: int) -> Callable[[], NDArray]:
    """Return a call of the straightforward version on the photograph."""
    return subjects.module_runner(partial(straightforward, subjects.network(name)), height, width, threads)


def straightforward(net: IGNN, lr: Tensor) -> Tensor:
    """Compute the network as one would first write it: lr (N, 3, H, W) to sr (N, 3, 2H, 2W)."""
    import torch
    import torch.nn.functional as F

    from benchmarks.gpu import plain
    from train.graph_agg import ADAPN_EPS

    config = net.config
    s, k = config.graph_scale, config.neighbors
    N, _, H, W = lr.shape
    x = net.head(lr - net.mean)
    features = net.body1(x)
    index, edge = plain.windowed_knn(net.embedding(lr), net.embedding(net.reduce(lr)), k, config.window, s)
    m1, m2 = index.shape[1:3]

    def unfold(image: Tensor, step: int) -> Tensor:
        h, w = image.shape[2] // step, image.shape[3] // step
        image = F.pad(image[:, :, : h * step, : w * step], (0, step * (1 - w % 2), 0, step * (1 - h % 2)))
        return F.unfold(image, 3 * step, stride=2 * step)

    def fold(patches: Tensor) -> Tensor:
        """Fold (N, k, channels * 9 s^2, m1 * m2) to (N * k, channels, sH, sW)."""
        size = (s * (2 * m1 + 1), s * (2 * m2 + 1))
        patches = patches.flatten(0, 1)
        count = F.fold(torch.ones_like(patches[:1, : 9 * s * s]), size, 3 * s, stride=2 * s)
        return (F.fold(patches, size, 3 * s, stride=2 * s) / count)[..., : s * H, : s * W]

    queries = unfold(features, 1).view(N, 1, -1, 9, m1 * m2)
    keys = unfold(features, s)
    neighbor = index.long().permute(0, 3, 1, 2).reshape(N, 1, -1).expand(-1, keys.shape[1], -1)
    patches = keys.gather(2, neighbor).view(N, -1, 9 * s * s, k, m1 * m2).permute(0, 3, 1, 2, 4)
    query_variance, query_mean = torch.var_mean(queries, 3, keepdim=True)
    variance, mean = torch.var_mean(patches, 3, keepdim=True)
    patches = (patches - mean) / (variance + ADAPN_EPS).sqrt() * (query_variance + ADAPN_EPS).sqrt() + query_mean
    folded = fold(patches.flatten(2, 3))

    labels = edge.flatten(3).unsqueeze(3).expand(-1, -1, -1, 9 * s * s, -1).flatten(2, 3)
    edges = fold(labels)  # (N * k, 64, sH, sW)
    hr_logits = torch.nn.Sequential.forward(net.gcn.weightnet_hr, edges)
    lr_logits = torch.nn.Sequential.forward(net.gcn.weightnet_lr, F.avg_pool2d(edges, s))
    hr_weight, lr_weight = (each.view(N, k, 1, *each.shape[2:]).softmax(1) for each in (hr_logits, lr_logits))
    f_hr = (hr_weight * folded.view(N, k, -1, s * H, s * W)).sum(1)
    f_lr = (lr_weight * net.gcn.knn_downsample(folded).view(N, k, -1, H, W)).sum(1)
    deep = x + net.body2(net.fuse_b(torch.cat([features, f_lr], 1)))
    return net.tail(net.fuse_up(torch.cat([net.upsample(deep), f_hr], 1))) + net.mean

"""What a second buys: PSNR on luma against seconds by output megapixel; a plus is self-ensemble.

Pictures are the middles of a folder's HR images, reduced as `ignn evaluate` does; each method enlarges all of them, in
turns, and is measured by the same protocol. A peer is any ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from benchmarks.results import REPOSITORY
from runtime.commands.measure import Factory, Worker, compare
from runtime.errors import UsageError

SCALE = 2
MOST_IMAGES = 10
Peer = tuple[str, str, Path]
"""Another project's network: its name, its value range and its ONNX file."""


def cases(
    threads: int, *, quick: bool, data: Path | None = None, peers: tuple[Peer, ...] = (), limit: int | None = None
) -> list[dict[str, Any]]:
    """Return the one configuration.

    Args:
        threads: CPU threads.
        quick: on a small part of the sample.
        data: folder of HR images.
        peers: other projects' networks.
        limit: only so many of the images, by name (default: 10).

    Raises:
        UsageError: there is no data, or a peer is not one.
        IgnnError: the folder holds no images.
    """
    for name, value_range, path in peers:
        if value_range not in ("0..1", "0..255") or not path.is_file():
            raise UsageError(
                f"Invalid --peer ({name} {value_range} {path}). A name, 0..1 or 0..255, and an ONNX file are expected."
            )
    files = {name: str(subjects.sha256(subjects.onnx_file(name))) for name in ("edsr-s", "ignn-s")}
    files |= {name: subjects.sha256(path) for name, _, path in peers}
    folder, images = _images(data, limit, quick=quick)
    return [
        {
            "data": folder.name,
            "images": images,
            "crop": 64 if quick else 512,
            "methods": ["bicubic", *files],
            "files_sha256": files,
            "threads": threads,
            "rounds": 1 if quick else 2,
        }
    ]


def _images(data: Path | None, limit: int | None, *, quick: bool) -> tuple[Path, list[str]]:
    """Return the folder and the names in it."""
    from train.data import list_images

    if data is None:
        if not quick:
            raise UsageError("quality_per_second needs a folder of HR images, such as Urban100: --data FOLDER")
        return REPOSITORY / "assets", ["sample.png"]
    if limit is not None and limit < 1:
        raise UsageError(f"Invalid --limit ({limit}). Whole numbers from 1 are supported.")
    return data.resolve(), [path.relative_to(data).as_posix() for path in list_images(data)[: limit or MOST_IMAGES]]


def measure(
    config: dict[str, Any], *, data: Path | None = None, peers: tuple[Peer, ...] = (), limit: int | None = None
) -> dict[str, Any]:
    """Measure all methods in turns; arguments as `cases` takes them."""
    from train.data import make_lr, read_rgb
    from train.metrics import psnr, to_uint8

    folder, _ = _images(data, limit, quick=True)
    pairs = [make_lr(_middle(read_rgb(folder / name), config["crop"]), SCALE) for name in config["images"]]
    shared = {"lr": [lr for lr, _ in pairs], "threads": config["threads"]}
    alternatives: dict[str, tuple[Factory, dict[str, Any]]] = {}
    ours = [(name, "", subjects.onnx_file(name)) for name in ("edsr-s", "ignn-s")]
    for plus in (False, True):
        alternatives[_label("bicubic", plus)] = (bicubic, {**shared, "ensemble": plus})
        for name, value_range, path in (*ours, *peers):
            arguments = {**shared, "model": str(path), "value_range": value_range, "ensemble": plus}
            alternatives[_label(name, plus)] = (network, arguments)

    def scores(workers: Mapping[str, Worker]) -> dict[str, float]:
        def mean(outputs: list[NDArray[np.float32]]) -> float:
            return float(np.mean([psnr(to_uint8(sr), hr, SCALE) for sr, (_, hr) in zip(outputs, pairs, strict=True)]))

        return {name: mean(worker.output()) for name, worker in workers.items()}

    found = compare(alternatives, outputs=scores, budget_s=0, min_rounds=config["rounds"])
    megapixels = sum(hr.shape[0] * hr.shape[1] for _, hr in pairs) / 1e6
    found["derived"] = {
        name: {
            "psnr_y_db": psnr_db,
            "seconds_per_megapixel": found["alternatives"][name]["wall_s"]["p50"] / megapixels,
        }
        for name, psnr_db in found["derived"].items()
    }
    return found


def _label(name: str, plus: bool) -> str:
    return name + ("+" if plus else "")


def _middle(hr: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    top, left = (max(0, (length - side) // 2) for length in hr.shape[:2])
    return hr[top : top + side, left : left + side]


def bicubic(lr: list[NDArray[np.uint8]], threads: int, ensemble: bool) -> Callable[[], list[NDArray[np.float32]]]:
    """Return a call that enlarges all pictures by bicubic interpolation."""
    from train.evaluate import self_ensemble
    from train.resize import upsample_uint8

    def upscale(one: NDArray[np.uint8]) -> NDArray[np.float32]:
        return upsample_uint8(one, SCALE).astype(np.float32)

    method = self_ensemble(upscale) if ensemble else upscale
    return lambda: [method(one) for one in lr]


def network(
    lr: list[NDArray[np.uint8]],
    threads: int,
    ensemble: bool,
    model: str,
    value_range: str,
) -> Callable[[], list[NDArray[np.float32]]]:
    """Return a call that enlarges all pictures by a network, as `SuperResolver` runs it."""
    from runtime import SuperResolver

    foreign: dict[str, Any] = {"scale": SCALE, "value_range": value_range} if value_range else {}
    resolver = SuperResolver(model, providers=["cpu"], tile=None, threads=threads, self_ensemble=ensemble, **foreign)
    return lambda: [resolver.super_resolve(one.astype(np.float32)) for one in lr]


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return no targets: the plot is the result."""
    return []


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines = []
    for row in rows:
        config, derived = row["config"], row["measurements"]["derived"]
        best = frontier(derived)
        for name, values in sorted(derived.items(), key=lambda item: item[1]["seconds_per_megapixel"]):
            better = [other for other in best if _beats(derived[other], values)]
            lines.append(
                {
                    "method": name,
                    "PSNR on luma, dB": f"{values['psnr_y_db']:.2f}",
                    "over bicubic, dB": f"{values['psnr_y_db'] - derived['bicubic']['psnr_y_db']:+.2f}",
                    "seconds a megapixel": values["seconds_per_megapixel"],
                    "faster and no worse": ", ".join(better),
                    "pictures": f"{len(config['images'])} of {config['data']}, {config['crop']} x {config['crop']}",
                }
            )
    return lines


def _beats(one: dict[str, float], other: dict[str, float]) -> bool:
    return one["seconds_per_megapixel"] < other["seconds_per_megapixel"] and one["psnr_y_db"] >= other["psnr_y_db"]


def frontier(derived: dict[str, dict[str, float]]) -> list[str]:
    """Return the methods than which no other is both faster and no worse, fastest first."""
    best = [name for name, values in derived.items() if not any(_beats(other, values) for other in derived.values())]
    return sorted(best, key=lambda name: derived[name]["seconds_per_megapixel"])


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return what to take."""
    return [
        "Take the last of these whose seconds you have: "
        + ", ".join(
            f"{name} ({derived[name]['psnr_y_db']:.2f} dB, {derived[name]['seconds_per_megapixel']:.3g} s)"
            for name in frontier(derived)
        )
        + ". Every other method here has one that is faster and no worse. PSNR says little of how regular structures "
        "look; peers were trained on photographs of their own."
        for derived in (row["measurements"]["derived"] for row in rows)
    ]


def curves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is plotted: a named point a method, and the line of what to take."""
    derived = rows[0]["measurements"]["derived"]
    points = {name: (values["seconds_per_megapixel"], values["psnr_y_db"]) for name, values in derived.items()}
    return {
        "x": "seconds by output megapixel",
        "y": "PSNR on luma, dB",
        "points": points,
        "lines": {"none is faster and better": [points[name] for name in frontier(derived)]},
    }

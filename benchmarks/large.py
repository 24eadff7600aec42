"""A large photograph in tiles: time by pixel and peak memory, against 256 x 256 whole and what others do.

The photograph is the sample, mirrored until it is large enough. `within` is what the process may hold in all, the
photograph and its result included; the tiles are those of `tile="auto"`. One tile of each kind (corner, edge, middle)
is run as a real call runs it, and the rest is counted: a kind's time grows with the work that the plan gives it. EDSR
in blended tiles is what is usually done with such networks: tiles of 256 with 16 pixels around them, joined by ramps
in float32; some tiles in the middle are run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import subjects
from benchmarks.peers import ncnn_files, ncnn_network
from benchmarks.results import target
from runtime.commands.measure import Factory, Worker, compare
from runtime.tiles.budget import result_bytes, work
from runtime.tiles.plan import Segment, Tile, TilePlan

SCALE = 2
TILE, OVERLAP = 256, 16
"""Of the blended tiles: their side and the pixels around them."""
_BLENDED_RUN = 4
"""How many blended tiles are run."""

MOST_BY_PIXEL = {2: 1.6, 4: 1.3}
"""The most that a pixel of the largest picture may take over one of a small picture, by GB of memory."""
_LARGEST = 3000

_CASES: list[dict[str, Any]] = [
    {"height": 720, "width": 1280, "within_gb": [4], "rounds": 2},
    {"height": _LARGEST, "width": 4000, "within_gb": [2, 4, 8], "rounds": 1},
]
_QUICK: dict[str, Any] = {"height": 300, "width": 400, "within_gb": [0.2], "rounds": 1}


def cases(threads: int, *, quick: bool) -> list[dict[str, Any]]:
    """Return the configurations to measure."""
    ours, plain = ("tiny", "edsr-tiny") if quick else ("ignn-s", "edsr-s")
    files = {
        "model_sha256": subjects.sha256(subjects.onnx_file(ours)),
        "plain_sha256": subjects.sha256(subjects.onnx_file(plain)),
    }
    sizes = [_QUICK] if quick else _CASES
    return [{"ours": ours, "plain": plain, **size, "threads": threads, **files} for size in sizes]


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Measure all alternatives in turns; `derived` holds, by alternative, what the whole picture takes."""
    ours, plain = config["ours"], config["plain"]
    files = {name: str(subjects.onnx_file(name)) for name in (ours, plain)}
    size = {key: config[key] for key in ("height", "width", "threads")}
    small = {"height": TILE, "width": TILE, "threads": config["threads"]}
    alternatives: dict[str, tuple[Factory, dict[str, Any]]] = {}
    plans: dict[str, tuple[TilePlan, Any]] = {}
    for name, limits in ((ours, config["within_gb"]), (plain, config["within_gb"][:1])):
        alternatives[whole_of(name)] = (subjects.super_resolver, {"model": files[name], **small})
        for limit in limits:
            label, limited = f"{name}, within {limit} GB", {"model": files[name], **size, "within": int(limit * 1e9)}
            with Worker(planned, limited) as worker:
                worker.run()
                plans[label] = worker.output()
            alternatives[label] = (tiled, {**limited, "plan": plans[label][0]})
    alternatives[f"{plain}, blended tiles"] = (blended_onnx_runtime, {"model": files[plain], **size})
    with tempfile.TemporaryDirectory() as folder:
        side = TILE + 2 * OVERLAP
        stem = ncnn_files(plain, side, side, Path(folder))
        alternatives[f"{plain}, blended tiles, ncnn"] = (blended_ncnn, {"stem": stem, **size})
        found = compare(alternatives, budget_s=0, min_rounds=config["rounds"], against=whole_of(ours))
    for label, numbers in found["alternatives"].items():
        seconds = {stage: values["p50"] for stage, values in numbers["stages_s"].items()}
        if label in plans:
            found["derived"][label] = _of_plan(*plans[label], seconds)
        elif seconds:
            found["derived"][label] = _of_blended(config["height"], config["width"], seconds)
        else:
            found["derived"][label] = {"seconds": numbers["wall_s"]["p50"], "pixels": TILE**2, "tiles": 1, "share": 1.0}
    return found


def whole_of(name: str) -> str:
    """Return the label of a network on a small picture."""
    return f"{name}, {TILE} x {TILE} whole"


def kind_of(plan: TilePlan, tile: Tile) -> str:
    """Return where a tile lies in its picture: tiles of one kind differ little in their crops."""
    inner_row = tile.row.start > 0 and tile.row.stop < plan.height
    inner_column = tile.column.start > 0 and tile.column.stop < plan.width
    if inner_row and inner_column:
        return "middle"
    return "side edge" if inner_row else "upper or lower edge" if inner_column else "corner"


def one_of_each_kind(plan: TilePlan) -> TilePlan:
    """Return the plan with the last row of tiles of each kind, and the last column."""

    def last_ones(segments: tuple[Segment, ...], length: int) -> tuple[Segment, ...]:
        kinds = {segment.start > 0 and segment.stop < length: segment for segment in segments}
        return tuple(sorted(kinds.values(), key=lambda segment: segment.start))

    return TilePlan(plan.height, plan.width, last_ones(plan.rows, plan.height), last_ones(plan.columns, plan.width))


def _of_plan(plan: TilePlan, stages: Any, seconds: dict[str, float]) -> dict[str, Any]:  # noqa: ANN401
    """Return what the whole picture takes: the time of a kind's one tile, as often as the kind's work holds its."""
    sample = one_of_each_kind(plan)
    total = dict.fromkeys(seconds, 0.0)
    for tile in plan:
        total[kind_of(plan, tile)] += _work(tile, stages)
    run = {kind_of(plan, tile): _work(tile, stages) for tile in sample}
    kept = sum((t.row.stop - t.row.start) * (t.column.stop - t.column.start) for t in sample)
    pixels = plan.height * plan.width
    return {
        "seconds": sum(seconds[kind] * total[kind] / run[kind] for kind in seconds),
        "pixels": pixels,
        "tiles": len(plan),
        "kinds": {kind: [kind_of(plan, tile) for tile in plan].count(kind) for kind in seconds},
        "share": kept / pixels,
        "work": work(plan, stages) / pixels,
        "crop_pixels": plan.crop_pixels,
    }


def _work(tile: Tile, stages: Any) -> float:  # noqa: ANN401
    height, width = tile.row.stop - tile.row.start, tile.column.stop - tile.column.start
    return work(TilePlan(height, width, (tile.row,), (tile.column,)), stages)


def _of_blended(height: int, width: int, seconds: dict[str, float]) -> dict[str, Any]:
    crops = blended_crops(height, width)
    run = middle_of(crops)
    total, measured = (sum((b - t) * (r - left) for t, b, left, r in some) for some in (crops, run))
    return {
        "seconds": seconds["tiles"] * total / measured + seconds["join"],
        "pixels": height * width,
        "tiles": len(crops),
        "share": measured / total,
        "work": total / (height * width),
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a pixel of the largest picture takes, over one of a small picture, where a target says how much."""
    found = []
    for row in rows:
        config, derived = row["config"], row["measurements"]["derived"]
        for limit in [gb for gb in config["within_gb"] if config["height"] >= _LARGEST and gb in MOST_BY_PIXEL]:
            ours = config["ours"]
            ratio = _by_pixel(derived[f"{ours}, within {limit} GB"]) / _by_pixel(derived[whole_of(ours)])
            text = f"{ours}, {config['height']} x {config['width']} within {limit} GB: time by pixel over a small one's"
            found.append(target(text, ratio, MOST_BY_PIXEL[limit]))
    return found


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines of a table."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        config, found = row["config"], row["measurements"]
        derived = found["derived"]
        for label, whole in derived.items():
            small = derived[whole_of(label.split(",")[0])]
            size = f"{config['height']} x {config['width']}" if "work" in whole else f"{TILE} x {TILE}"
            lines.append(
                {
                    "network": label,
                    "LR": size,
                    "tiles": whole["tiles"],
                    "share run": whole["share"],
                    "work, by the plan": whole.get("work", 1.0),
                    "time, s": whole["seconds"],
                    "microseconds a pixel": _by_pixel(whole) * 1e6,
                    "over 256 x 256 whole": _by_pixel(whole) / _by_pixel(small),
                    "pictures/s": 1 / whole["seconds"],
                    "peak memory, MB": found["alternatives"][label]["peak_bytes"] / 1e6,
                }
            )
        lines += [
            {"network": label, "LR": f"{config['height']} x {config['width']}", "time, s": f"not run: {why}"}
            for label, why in found.get("not_run", {}).items()
        ]
    return lines


def _by_pixel(whole: dict[str, Any]) -> float:
    return float(whole["seconds"] / whole["pixels"])


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Return what was run and what was counted."""
    return [
        "Times of whole pictures are counted from the share that was run: one tile of each kind of the plan, or "
        f"{_BLENDED_RUN} of the blended tiles. Work, by the plan: what tiles compute, context that neighbors compute "
        "again included, over the picture's own pixels; the logger `ignn` says it at level INFO. Memory is that of "
        "the whole process with the picture and its result; the file is neither read nor written."
    ]


def planned(model: str, height: int, width: int, threads: int, within: int) -> Callable[[], Any]:
    """Return a call that cuts a picture as `tile="auto"` does: its plan and the network's stages."""
    network = _limited(model, threads, within)
    picture = subjects.photograph(height, width)
    kept = result_bytes(picture[..., 0].size * SCALE**2, as_bytes=True, self_ensemble=False)
    return lambda: (network.plan(height, width, kept_bytes=kept), network.backend.stages)


def tiled(
    model: str, height: int, width: int, threads: int, within: int, plan: TilePlan
) -> Callable[[], dict[str, float]]:
    """Return a call that runs a plan's tiles on a picture, beside its whole result, and gives each tile's seconds."""
    from runtime.tiles.composer import Composer
    from runtime.tiles.images import TiledImage

    network = _limited(model, threads, within)
    picture = subjects.photograph(height, width)
    convert = network.converter(picture.dtype, grey=False)
    sample = one_of_each_kind(plan)
    rows_as_wide = TilePlan(height, width, sample.rows, plan.columns)
    result = np.ones((SCALE * height, SCALE * width, 3), np.uint8)

    def receive(first: int, band: NDArray[Any]) -> None:
        result[first : first + len(band)] = band

    def run() -> dict[str, float]:
        composer = Composer(rows_as_wide, SCALE, convert)
        image = TiledImage(sample, lambda tile: tile.crop(picture), composer, receive)
        times = [time.perf_counter()]
        for _ in network.run_tiles([image]):
            times.append(time.perf_counter())
        if image.error is not None:
            raise image.error
        kinds = [kind_of(sample, tile) for tile in sample]
        return {kind: b - a for kind, a, b in zip(kinds, times[:-1], times[1:], strict=True)}

    return run


def _limited(model: str, threads: int, within: int) -> Any:  # noqa: ANN401
    """Open a network that takes what `within` leaves of the process's memory for all that is free."""
    from runtime import SuperResolver
    from runtime.backends.memory import resident_memory

    network = SuperResolver(model, providers=["cpu"], threads=threads).network
    network.backend.free_memory = lambda: max(0, within - resident_memory())  # type: ignore[method-assign]
    return network


def blended_onnx_runtime(model: str, height: int, width: int, threads: int) -> Callable[[], dict[str, float]]:
    """Return a call of plain ONNX Runtime, with its default options, on blended tiles."""
    from runtime.backends.onnx_runtime import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _blended(lambda lr: session.run(None, {"lr": lr})[0][0], height, width)


def blended_ncnn(stem: str, height: int, width: int, threads: int) -> Callable[[], dict[str, float]]:
    """Return a call of ncnn on blended tiles."""
    run_network = ncnn_network(stem, threads)
    return _blended(lambda lr: run_network(lr[0]), height, width)


Crop = tuple[int, int, int, int]
"""First and last row, first and last column of what the network sees of a blended tile."""


def blended_crops(height: int, width: int) -> list[Crop]:
    """Return all crops of a picture's blended tiles."""

    def seen(length: int) -> list[tuple[int, int]]:
        return [(max(0, at - OVERLAP), min(length, at + TILE + OVERLAP)) for at in range(0, length, TILE)]

    return [(*rows, *columns) for rows in seen(height) for columns in seen(width)]


def middle_of(crops: list[Crop]) -> list[Crop]:
    """Return the largest crops, as many as are run."""
    return sorted(crops, key=lambda crop: (crop[0] - crop[1]) * (crop[3] - crop[2]))[:_BLENDED_RUN]


def _blended(
    run_network: Callable[[NDArray[np.float32]], NDArray[np.float32]], height: int, width: int
) -> Callable[[], dict[str, float]]:
    """Return a call that joins tiles by ramps, and gives the seconds of the tiles and of the division at the end."""
    picture = subjects.photograph(height, width)
    crops = middle_of(blended_crops(height, width))
    sums = np.zeros((SCALE * height, SCALE * width, 3), np.float32)
    weights = np.ones((SCALE * height, SCALE * width, 1), np.float32)

    def ramp(length: int) -> NDArray[np.float32]:
        steps = np.arange(0.5, SCALE * length, dtype=np.float32) / (2 * SCALE * OVERLAP)
        return np.minimum(1, np.minimum(steps, steps[::-1]))

    def run() -> dict[str, float]:
        start = time.perf_counter()
        for top, bottom, left, right in crops:
            lr = picture[top:bottom, left:right].transpose(2, 0, 1)[None].astype(np.float32)
            weight = ramp(bottom - top)[:, None, None] * ramp(right - left)[:, None]
            place = np.s_[SCALE * top : SCALE * bottom, SCALE * left : SCALE * right]
            sums[place] += run_network(np.ascontiguousarray(lr)).transpose(1, 2, 0) * weight
            weights[place] += weight
        joined = time.perf_counter()
        np.divide(sums, weights, out=sums)
        np.clip(np.rint(sums, out=sums), 0, 255, out=sums).astype(np.uint8)
        return {"tiles": joined - start, "join": time.perf_counter() - joined}

    return run

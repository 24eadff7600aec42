"""The tiles that compute least within the free memory: `tile="auto"`."""

from __future__ import annotations

from collections.abc import Callable

from ..backends import Backend
from ..backends.memory import free_host_memory
from ..errors import DeviceMemoryError
from ..metadata import ModelMetadata, StageFacts
from .plan import Segment, TilePlan, TileSize, plan_tiles

MINIMUM_TILE = 32
"""Smallest tile, in LR pixels, that `tile="auto"` or running out of memory leads to."""

MEMORY_SHARE = 0.6
"""Share of the free memory that `tile="auto"` uses: the rest is for other programs."""


STAGE_WORK = (0.2, 0.75, 0.15)
"""Time of the stages, by pixel of the crop, of the part in which neighbors are folded and of the tile itself, over that
of the network as one graph: measured on ignn-s, 512 x 512."""


def affordable_tile(
    backend: Backend,
    height: int,
    width: int,
    *,
    free: int,
    halo: int | None,
    batch: int = 1,
    kept_bytes: int = 0,
    most_bytes: int | None = None,
) -> TileSize | None:
    """Return the size of the tiles that compute least within the free memory, or None if the whole image fits.

    Args:
        backend: what runs the network.
        height, width: the image, in LR pixels.
        free: bytes that are free where the network runs.
        halo: context in LR pixels; None: the model's own.
        batch: how many tiles run at once.
        kept_bytes: what the picture will take beside the network: its result, mainly.
        most_bytes: what the network may take at most, however much is free.

    Raises:
        DeviceMemoryError: even the smallest tile needs more than is free.
    """
    metadata = backend.metadata
    on_host = free if backend.on_host else free_host_memory()
    left = free - kept_bytes if backend.on_host else free
    smallest = needed_bytes(plan_tiles(height, width, metadata, tile=MINIMUM_TILE, halo=halo), metadata, backend.stages)
    if left < smallest or on_host < kept_bytes:
        stream = "; a picture larger than memory goes through --stream, to .png or .tif" if kept_bytes else ""
        raise DeviceMemoryError(
            f"A picture of {width} x {height} pixels needs {_megabytes(kept_bytes)} for its result, and the network "
            f"{_megabytes(smallest)} for the smallest tile ({MINIMUM_TILE} pixels); {_megabytes(min(free, on_host))} "
            f"are free. Free memory, or try it all the same with a tile of your own (--tile {MINIMUM_TILE}){stream}."
        )
    budget = int(left * MEMORY_SHARE / batch)
    if most_bytes is not None:
        budget = min(budget, most_bytes)

    def fits(plan: TilePlan) -> bool:
        return needed_bytes(plan, metadata, backend.stages) <= budget

    whole = plan_tiles(height, width, metadata, tile=None)
    if fits(whole):
        return None
    best, least = (MINIMUM_TILE, MINIMUM_TILE), float("inf")
    multiple = metadata.tile_multiple
    for side in _sides(width, multiple):

        def plan(tall: int, side: int = side) -> TilePlan:
            return plan_tiles(height, width, metadata, tile=(tall, side), halo=halo)

        tall = _tallest(_sides(height, multiple), lambda tall, plan=plan: fits(plan(tall)))  # type: ignore[misc]
        if tall is not None and (needed := work(plan(tall), backend.stages)) < least:
            best, least = (tall, side), needed
    return best


def needed_bytes(plan: TilePlan, metadata: ModelMetadata, stages: StageFacts | None) -> int:
    """Return the memory that the network takes on the plan's largest crop."""
    if stages is None:
        return plan.crop_pixels * metadata.bytes_per_pixel
    height, width = _longest(plan.rows, stages), _longest(plan.columns, stages)
    band = min(height, stages.band_rows(width)) * width
    return plan.crop_pixels * stages.crop_bytes + height * width * stages.field_bytes + band * stages.band_bytes


def work(plan: TilePlan, stages: StageFacts | None) -> float:
    """Return what running a plan costs, in LR pixels of the network as one graph."""
    crops = sum(row.crop_length for row in plan.rows) * sum(column.crop_length for column in plan.columns)
    if stages is None or plan.crop_pixels <= stages.whole_pixels:
        return crops
    field = sum(_field(row, stages) for row in plan.rows) * sum(_field(column, stages) for column in plan.columns)
    of_crop, of_field, of_tile = STAGE_WORK
    return of_crop * crops + of_field * field + of_tile * plan.height * plan.width


def _longest(segments: tuple[Segment, ...], stages: StageFacts) -> int:
    return max(_field(segment, stages) for segment in segments)


def _field(segment: Segment, stages: StageFacts) -> int:
    """Return the length of the part of a crop in which neighbors are folded."""
    first = max(segment.crop_start, segment.start - segment.ramp_before - stages.fold_halo)
    last = min(segment.crop_stop, segment.stop + segment.ramp_after + stages.fold_halo)
    return last - first


def _sides(length: int, multiple: int) -> list[int]:
    """Return the tile sides to try in a direction, largest first: equal parts, of any number up to 32, then of some."""
    most, sides = -(-length // MINIMUM_TILE), list[int]()
    count = 1
    while count < most:
        sides.append(max(MINIMUM_TILE, -(-length // (count * multiple)) * multiple))
        count += max(1, count // 32)
    return [*sides, MINIMUM_TILE]


def _tallest(sides: list[int], fits: Callable[[int], bool]) -> int | None:
    """Return the first side for which `fits` is true, or None."""
    low, high = 0, len(sides)
    while low < high:  # a smaller tile never has a larger crop
        middle = (low + high) // 2
        low, high = (low, middle) if fits(sides[middle]) else (middle + 1, high)
    return sides[low] if low < len(sides) else None


def result_bytes(pixels: int, *, as_bytes: bool, self_ensemble: bool) -> int:
    """Return what a result of so many HR pixels takes: twice its size, for it is copied to be written.

    Args:
        pixels: HR pixels.
        as_bytes: whether its values are bytes, and not float32.
        self_ensemble: whether the sum over the turns, and the turn that is added, are kept as well.
    """
    return 3 * pixels * (2 * (1 if as_bytes else 4) + (2 * 4 if self_ensemble else 0))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"

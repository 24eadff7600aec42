"""The largest tile that the free memory allows: `tile="auto"`."""

from __future__ import annotations

from ..backends import Backend
from ..backends.memory import free_host_memory
from ..errors import DeviceMemoryError
from .plan import largest_tile, plan_tiles

MINIMUM_TILE = 32
"""Smallest tile, in LR pixels, that `tile="auto"` or running out of memory leads to."""

MEMORY_SHARE = 0.6
"""Share of the free memory that `tile="auto"` uses: the rest is for other programs."""


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
) -> int | None:
    """Return the side of the largest tile that the free memory allows, or None if the whole image fits.

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
    smallest = plan_tiles(height, width, metadata, tile=MINIMUM_TILE, halo=halo).crop_pixels * metadata.bytes_per_pixel
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
    tile = largest_tile(height, width, metadata, crop_pixels=budget // metadata.bytes_per_pixel, halo=halo)
    return tile if tile is None else max(tile, MINIMUM_TILE)


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

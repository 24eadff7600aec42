"""Backends run the network: ONNX Runtime, TensorRT, TensorRT-RTX, OpenVINO. This is the protocol that they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ClosedError, NonFiniteOutputError
from ..metadata import ModelMetadata, StageFacts

PRECISIONS = ("fp32", "bf16")
"""What OpenVINO may compute in."""

Values = NDArray[Any]
"""A network's values, float32, or a picture's, uint8."""


class Box(NamedTuple):
    """A part of a crop, in LR pixels, half-open."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Its rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Its columns."""
        return self.right - self.left

    def grown(self, by: int, multiple: int, end: tuple[int, ...], start: tuple[int, int] = (0, 0)) -> Box:
        """Return it with `by` pixels more on each side, from multiples of `multiple` on, cut at `start` and `end`."""
        return Box(
            max(start[0], (self.top - by) // multiple * multiple),
            max(start[1], (self.left - by) // multiple * multiple),
            min(end[0], -(-(self.bottom + by) // multiple) * multiple),
            min(end[1], -(-(self.right + by) // multiple) * multiple),
        )

    def rows(self, top: int, bottom: int) -> Box:
        """Return its rows from `top` to `bottom`, those of them that it has."""
        return Box(max(self.top, top), self.left, min(self.bottom, bottom), self.right)

    def within(self, outer: Box) -> Box:
        """Return it as seen from the upper left corner of another box."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def of(self, values: Values) -> Values:
        """Return this part of (..., H, W), contiguous in memory."""
        return np.ascontiguousarray(values[..., self.top : self.bottom, self.left : self.right])


class BackendMemoryError(Exception):
    """A run did not fit in memory. `TiledNetwork` tries smaller tiles; users see `DeviceMemoryError`."""


def non_finite(metadata: ModelMetadata) -> NonFiniteOutputError:
    """Return the error to raise for a result with NaN or infinite values."""
    return NonFiniteOutputError(
        f"The network ({metadata.name}, {metadata.precision}) gave NaN or infinite values. Use the fp32 file of this "
        "model, and report it with the image."
    )


def closed(metadata: ModelMetadata) -> ClosedError:
    """Return the error to raise for a run after `close()`."""
    return ClosedError(f"The network ({metadata.name}) was closed. Open it again: SuperResolver(...).")


class Backend(Protocol):
    """Runs one network."""

    @property
    def metadata(self) -> ModelMetadata:
        """What the runtime knows about the network."""

    @property
    def description(self) -> str:
        """The runtime and the device, for messages: `ONNX Runtime 1.20 (CPUExecutionProvider)`."""

    @property
    def on_host(self) -> bool:
        """Whether the network runs in the host's memory."""

    @property
    def largest_input(self) -> tuple[int, int] | None:
        """Height and width that an input may have at most; None: any."""

    @property
    def takes_bytes(self) -> bool:
        """Whether it also takes (N, H, W, 3) uint8 RGB, and gives such for it: rounded, clamped, and an error
        (`non_finite`) where the network's values are not finite."""

    @property
    def stages(self) -> StageFacts | None:
        """How it runs large crops in stages, where it does: `run_kept` then computes what is kept of a crop alone."""

    def run(self, lr: Values) -> Values:
        """Run it: (N, 3, H, W) float32 RGB in the metadata's range -> (N, 3, scale*H, scale*W) float32, not clamped.

        Safe to call from several threads: they wait for one another.

        Raises:
            BackendMemoryError: it did not fit in memory.
        """

    def run_kept(self, lr: Values, kept: Box) -> Values:
        """Run it on one crop, of which the result has a meaning where it is kept; for a backend with `stages`."""

    def run_all(self, inputs: Iterable[Values]) -> Iterator[Values]:
        """Run each, in order; a backend on a device copies some while it runs others.

        It takes at most three inputs more than it has given results, and keeps no result that the caller does not take.
        Other callers may have to wait until it ends, so the caller takes its results without waiting for anything else.

        Raises:
            BackendMemoryError: one did not fit in memory. The caller runs again those that have no result.
        """

    def cancel(self) -> None:
        """Have the run under way fail as soon as it can, and all later ones: the process is about to end."""

    def free_memory(self) -> int:
        """Return the bytes that are free for a run now, on the device that the network runs on."""

    def close(self) -> None:
        """Wait for the run under way, and free the network, its session or engine, and its memory on the device.

        Later runs raise `ClosedError`; closing again does nothing.
        """

"""Backends: one small protocol between the resolver and whatever runs the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.metadata import ModelMetadata


class BackendMemoryError(Exception):
    """A run did not fit in memory. The resolver halves the tile and tries again; users see `DeviceMemoryError`."""


class Backend(Protocol):
    """Runs one network."""

    @property
    def metadata(self) -> ModelMetadata:
        """Facts about the network."""

    @property
    def description(self) -> str:
        """What runs where, for people: `ONNX Runtime 1.20 (CPUExecutionProvider)`."""

    def run(self, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) float32 RGB in the metadata's value range -> (N, 3, scale*H, scale*W) float32, not clamped.

        Safe to call from several threads: they wait for one another.

        Raises:
            BackendMemoryError: it did not fit in memory.
        """

    def run_all(self, inputs: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """`run` of each, in order; a backend on a device copies some while it runs others.

        Raises:
            BackendMemoryError: one did not fit in memory. The caller runs it, and those after the last result, alone.
        """

    def free_memory(self) -> int:
        """Bytes free for a run now, on the device that the network runs on."""

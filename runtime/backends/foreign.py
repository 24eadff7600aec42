"""Networks of others: what one takes, found out when it is opened, and how any picture is brought to that.

Taken are float32 and float16; three channels, or one, which is then the luma, while the colors are enlarged by bicubic
interpolation; free or fixed sizes; and sizes that must be multiples of some number, as before a pixel-unshuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ModelLoadError, UsageError
from ..metadata import ModelMetadata

TYPES: dict[str, np.dtype[Any]] = {"tensor(float)": np.dtype(np.float32), "tensor(float16)": np.dtype(np.float16)}
"""ONNX Runtime's names of the types that a network may take."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""

MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""What the sides of an input may have to be multiples of; tried in this order."""

TRIED_SIDE = 33
"""About the side of the inputs that are tried: large enough for a window of attention, small enough to cost nothing."""

FREE = 1 << 30
"""Stands for a side that is not fixed."""

Call = Callable[[NDArray[Any]], NDArray[Any]]
"""Runs the network itself: (N, C, H, W) of its type in, of any type out."""


@dataclass(frozen=True)
class Signature:
    """What a network takes.

    Attributes:
        dtype: float32 or float16.
        channels: 3, or 1: the luma.
        batch: how many inputs at once, or None: any number.
        height, width: sides of an input, or None: any.
    """

    dtype: np.dtype[Any]
    channels: int
    batch: int | None
    height: int | None
    width: int | None

    @property
    def is_plain(self) -> bool:
        """Whether it takes float32 (N, 3, H, W) of any H and W, as the networks of `ignn export` do."""
        return (self.dtype, self.channels, self.largest_input) == (np.dtype(np.float32), 3, None)

    @property
    def largest_input(self) -> tuple[int, int] | None:
        """Height and width that an input may have, or None: any."""
        if self.height is None and self.width is None:
            return None
        return self.height or FREE, self.width or FREE


def read_signature(source: str, inputs: Sequence[Any], outputs: Sequence[Any], *, ours: bool) -> Signature:
    """Return what a network takes, by ONNX Runtime's descriptions of its inputs and outputs.

    Args:
        source: what messages call it.
        inputs, outputs: the descriptions.
        ours: whether it is of `ignn export`, and must take what all of these do.

    Raises:
        ModelLoadError: it is not one picture in and one picture out, or of a kind that is not taken.
    """
    for kind, values in (("input", inputs), ("output", outputs)):
        described = ", ".join(f"{value.name} {value.type} {value.shape}" for value in values)
        if len(values) != 1 or values[0].type not in TYPES or len(values[0].shape) not in (0, 4):
            raise ModelLoadError(
                f"{source} is not an image super-resolution network: its {kind} is {described or 'absent'}; one "
                "float32 or float16 tensor of shape (N, 3, H, W), or (N, 1, H, W), is expected."
            )
    sizes = [size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape or [None] * 4]
    batch, channels, height, width = sizes
    if channels not in (None, 1, 3) or batch not in (None, 1):
        raise ModelLoadError(
            f"{source} takes an input of shape {inputs[0].shape}; (N, 3, H, W) or (N, 1, H, W) is expected, with N "
            "free, or 1."
        )
    signature = Signature(TYPES[inputs[0].type], channels or 3, batch, height, width)
    if ours and not signature.is_plain:
        raise ModelLoadError(
            f"{source} takes an input of shape {inputs[0].shape} and {inputs[0].type}; float32, 3 channels and free "
            "height and width are expected of its metadata. Export it again with `ignn export`."
        )
    return signature


class ForeignNetwork:
    """A network that `ignn export` did not make, as one that takes float32 (N, 3, H, W) of any size.

    Args:
        source: what messages call it.
        signature: what it takes.
        metadata: its scale and value range, as the user gave them.
        call: runs it.

    Attributes:
        metadata: with what was found out: the multiple that tiles lie on, and a halo that leaves room for a tile.

    Raises:
        ModelLoadError: it runs on no size that was tried, or has another scale.
    """

    def __init__(self, source: str, signature: Signature, metadata: ModelMetadata, call: Call) -> None:
        self._source, self._signature, self._scale = source, signature, metadata.scale
        if signature.largest_input is not None:
            self._multiple = 1
            self.metadata = replace(metadata, halo=min(metadata.halo, min(signature.largest_input) // 4))
        else:
            self._multiple = self._find_multiple(call)
            self.metadata = replace(metadata, tile_multiple=self._multiple)

    def run(self, call: Call, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run it: (N, 3, H, W) -> (N, 3, scale * H, scale * W), float32 of its own value range.

        Args:
            call: runs the network itself.
            lr: the input.

        Raises:
            UsageError: the input is larger than the network's fixed size.
            ModelLoadError: the network gave another size than its scale says.
        """
        height, width = lr.shape[2:]
        if self._signature.channels == 3:
            return self._enlarge(call, lr)
        luma = np.einsum("nchw,c->nhw", lr, LUMA)[:, None].astype(np.float32)
        sizes = (width * self._scale, height * self._scale)
        rest = [[_bicubic(plane, sizes) for plane in planes] for planes in lr - luma]
        return self._enlarge(call, luma) + np.array(rest, np.float32)

    def _enlarge(self, call: Call, lr: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pad to a size that it takes, run it, one picture at a time if it takes no more, and cut the result."""
        height, width = lr.shape[2:]
        taken = [
            fixed or -(-side // self._multiple) * self._multiple
            for side, fixed in ((height, self._signature.height), (width, self._signature.width))
        ]
        if taken[0] < height or taken[1] < width:
            raise UsageError(
                f"{self._source} takes pictures of {taken[1]} x {taken[0]} pixels, and a tile with its context has "
                f"{width} x {height}. Leave the tile to itself (--tile auto, in Python tile='auto')."
            )
        padded = np.pad(lr, ((0, 0), (0, 0), (0, taken[0] - height), (0, taken[1] - width)), mode="edge")
        padded = np.ascontiguousarray(padded, self._signature.dtype)
        parts = [padded] if self._signature.batch is None else list(padded[:, None])
        results = [np.asarray(call(part), np.float32) for part in parts]
        expected = (*parts[0].shape[:2], taken[0] * self._scale, taken[1] * self._scale)
        if results[0].shape != expected:
            raise self._wrong_scale(parts[0].shape, results[0].shape, expected)
        return np.concatenate(results)[:, :, : height * self._scale, : width * self._scale]

    def _find_multiple(self, call: Call) -> int:
        """Return the smallest number whose multiples the network takes as sides, by trying."""
        failure: Exception | None = None
        given: tuple[int, ...] = ()
        for multiple in MULTIPLES:
            height = multiple * (TRIED_SIDE // multiple | 1)  # of no larger power of two, nor is the width
            width = height + 2 * multiple
            shape = (1, self._signature.channels, height, width)
            try:
                given = call(np.zeros(shape, self._signature.dtype)).shape
            except Exception as error:
                failure = failure or error
                continue
            expected = (1, self._signature.channels, height * self._scale, width * self._scale)
            if given == expected:
                return multiple
            if len(given) == 4 and given[2] % height == 0:  # a right size of another scale
                raise self._wrong_scale(shape, given, expected)
        if given:
            raise self._wrong_scale(shape, given, expected)
        raise ModelLoadError(f"{self._source} runs on none of the sizes that were tried: {failure}") from failure

    def _wrong_scale(self, shape: tuple[int, ...], given: tuple[int, ...], expected: tuple[int, ...]) -> ModelLoadError:
        return ModelLoadError(
            f"{self._source} gave shape {given} for an input of shape {shape}; {expected} was expected of scale "
            f"{self._scale}. Give its true --scale."
        )


def _bicubic(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, Image.Resampling.BICUBIC))

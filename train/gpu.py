"""What keeps a GPU busy with a small network: patches are cut on it, and a step runs as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from train.data import PatchSource, turn

_SHARE_OF_MEMORY = 0.25
"""Share of the GPU's free memory that photographs may take."""
_WARM_UP = 3
"""Runs before a capture, as PyTorch's notes on CUDA graphs ask for."""


def fits(source: PatchSource, device: torch.device) -> bool:
    """Return whether the device is a GPU with room for all photographs."""
    return device.type == "cuda" and source.pixels.size < _SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]


class PatchCutter:
    """Cuts the batches of a `PatchSource` on a device that holds all photographs.

    Args:
        source: the photographs.
        patch: side of an LR patch in pixels.
        device: where they are kept.
    """

    def __init__(self, source: PatchSource, patch: int, device: torch.device) -> None:
        self._source, self._patch = source, patch
        self._pixels = torch.empty(source.pixels.size, dtype=torch.uint8, device=device)
        piece = 2**28
        for start in range(0, source.pixels.size, piece):
            self._pixels[start : start + piece] = torch.from_numpy(source.pixels[start : start + piece].copy())
        # Per side and orientation: rows and columns that the pixels of a patch come from.
        self._rows, self._columns = [], []
        for side in (patch, source.scale * patch):
            grid = np.arange(side * side).reshape(side, side)
            turned = np.stack([turn(grid, turns, flip) for turns in range(4) for flip in range(2)]).reshape(8, -1)
            self._rows.append(torch.from_numpy(turned // side).to(device))
            self._columns.append(torch.from_numpy(turned % side).to(device))

    def places(self, drawn: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Tensor:
        """Return what `cut` takes: (size, 5) int64, where LR begins and how wide it is, likewise HR, orientation.

        Args:
            drawn: what `PatchSource.draw` returned.
        """
        number, y, x, turns, flip = drawn.T
        lr_offset, hr_offset, _, width = np.array(self._source.entries)[number].T
        s = self._source.scale
        lr_start = lr_offset + 3 * (y * width + x)
        hr_start = hr_offset + 3 * (s * y * s * width + s * x)
        return torch.from_numpy(np.column_stack([lr_start, width, hr_start, s * width, 2 * turns + flip]))

    def cut(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return (lr, hr) as `PatchSource.batch` does, in channels-last.

        Args:
            places: what `places` returned, on the device.
        """
        orientation = places[:, 4]
        images = []
        for start, width, rows, columns, side in zip(
            places[:, 0:4:2].T,
            places[:, 1:4:2].T,
            self._rows,
            self._columns,
            (self._patch, self._source.scale * self._patch),
            strict=True,
        ):
            pixel = start[:, None] + 3 * (rows[orientation] * width[:, None] + columns[orientation])
            values = self._pixels[pixel[..., None] + torch.arange(3, device=pixel.device)]
            images.append(values.view(-1, side, side, 3).permute(0, 3, 1, 2))
        return images[0], images[1]


class CapturedGradients:
    """A function that computes a loss and its gradients, captured as a CUDA graph: one launch in place of hundreds.

    Args:
        compute: from tensors to a scalar loss, whose gradients it adds to those of the parameters.
        inputs: tensors on the GPU; all later ones have their shapes.
        parameters: get the gradients.
    """

    def __init__(
        self, compute: Callable[..., Tensor], inputs: Sequence[Tensor], parameters: Sequence[nn.Parameter]
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._parameters = parameters
        self._clear()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                compute(*self._inputs)
                self._clear()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Threads that prepare batches pin memory meanwhile, which a capture otherwise forbids everywhere.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._loss = compute(*self._inputs)
        self._gradients = [parameter.grad for parameter in parameters]

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return the loss; the parameters' gradients are those of these inputs alone."""
        for own, tensor in zip(self._inputs, inputs, strict=True):
            own.copy_(tensor, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._loss.clone()

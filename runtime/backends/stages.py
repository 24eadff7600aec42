"""A network in stages on the CPU: what is computed of a crop is what the tile in it needs, and little lives at once.

A crop is a tile and its context. Only the first layers and the search window need all of the context; the rest runs on
the tile and a few pixels around it (the *field*), and what is at output size runs in bands of rows. The file's own
functions are the stages, see `export.stages`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metadata import STAGES, StageFacts
from . import Box
from .memory import return_freed_memory
from .onnx_file import read_stages
from .onnx_runtime import onnxruntime as ort

Map = NDArray[np.float32]
MakeSession = Callable[[str], Any]


class StagedNetwork:
    """The stages of one file, each in a session of its own.

    Args:
        model: content of the file.
        facts: what the file says of its stages.
        scale, graph_scale: of the network.
        make_session: opens a session of a file.
        run_options: of the last run of each stage: they give memory back.
    """

    def __init__(
        self,
        model: bytes,
        facts: StageFacts,
        scale: int,
        make_session: MakeSession,
        run_options: ort.RunOptions,
    ) -> None:
        self._facts, self._scale = facts, scale
        # Between bands, which are alike, the memory that a stage gave back would be taken again at once.
        self._last_options, self._band_options = run_options, ort.RunOptions()
        with tempfile.TemporaryDirectory(prefix="ignn_stages_") as folder:
            # By its path: its content would be held beside the weights made of it.
            path = Path(folder) / "stage.onnx"
            self._sessions = {}
            for name, content in read_stages(model, STAGES).items():
                path.write_bytes(content)
                self._sessions[name] = make_session(str(path))

    def cancel(self) -> None:
        """Have the run under way fail as soon as it can, and all later ones."""
        self._last_options.terminate = self._band_options.terminate = True

    def run(self, lr: Map, kept: Box, result: Map) -> None:
        """Run on one crop.

        Args:
            lr: (1, 3, H, W).
            kept: what of the crop is wanted, in LR pixels.
            result: (1, 3, scale * H, scale * W), which is filled where the crop is kept.
        """
        height, width = lr.shape[2:]
        least = self._facts.minimum_size
        if min(height, width) < least:
            pads = ((0, 0), (0, 0), (0, max(0, least - height)), (0, max(0, least - width)))
            lr = np.pad(lr, pads, mode="edge")
            padded = np.empty((1, 3, self._scale * lr.shape[2], self._scale * lr.shape[3]), np.float32)
            self.run(lr, Box(0, 0, *lr.shape[2:]), padded)
            result[:] = padded[:, :, : self._scale * height, : self._scale * width]
            return
        field = kept.grown(self._facts.fold_halo, 2 * self._facts.graph_scale, lr.shape[2:])
        deep, f_hr = self._aggregated(lr, field)
        for part, sr in self._output(deep, f_hr, field, kept):
            s = self._scale
            result[:, :, part.top * s : part.bottom * s, part.left * s : part.right * s] = sr

    def _aggregated(self, lr: Map, field: Box) -> tuple[Map, Map]:
        """Return the body's result (1, C, h, w) and f_hr (s * h, s * w, C) of the field."""
        index, weight_lr, weight_hr = self._neighbors(lr, field)
        shape = (1, self._facts.channels, *lr.shape[2:])
        x, features = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self._run("features", {"lr": lr}, {"x": x, "features": features})
        x = field.of(x)
        f_lr, f_hr = self._folded(features, index, weight_lr, weight_hr, field)
        del index, weight_lr, weight_hr
        features, fused = field.of(features), np.empty_like(x)
        for band, seen, last in self._bands(field, 2):
            inside = seen.within(field)
            given = {"features": inside.of(features), "f_lr": inside.of(f_lr)}
            rows = np.empty((1, self._facts.channels, seen.height, seen.width), np.float32)
            self._run("fuse", given, {"fused": rows}, last=last)
            _put(fused, band.within(field), rows, band.within(seen))
        del features, f_lr
        deep = np.empty_like(x)
        self._run("body", {"x": x, "fused": fused}, {"deep": deep})
        return deep, f_hr

    def _neighbors(self, lr: Map, field: Box) -> tuple[NDArray[np.int32], Map, Map]:
        """Return the neighbors of the queries over the field, in a grid (k, m1, m2) of all, and their weights there."""
        s, k = self._facts.graph_scale, self._facts.neighbors
        m1, m2 = lr.shape[2] // 2, lr.shape[3] // 2
        top, left = max(0, field.top // 2 - s), max(0, field.left // 2 - s)
        bottom, right = min(m1, (field.bottom + 1) // 2 + s), min(m2, (field.right + 1) // 2 + s)
        pixels = np.array([2 * top, 2 * left, 2 * bottom + 1, 2 * right + 1])
        rows, columns = bottom - top, right - left
        found = np.empty((1, rows, columns, k), np.int32)
        weights = [np.empty((1, k, 2 * rows + 1, 2 * columns + 1), np.float32) for _ in range(2)]
        self._run(
            "neighbors",
            {"lr": lr, "pixels": pixels, "origin": np.array([top, left])},
            {"index": found, "weight_lr": weights[0], "weight_hr": weights[1]},
        )
        index = np.zeros((k, m1, m2), np.int32)
        index[:, top:bottom, left:right] = found[0].transpose(2, 0, 1)
        inside = field.within(Box(2 * top, 2 * left, 2 * bottom, 2 * right))
        weight_lr, weight_hr = (inside.of(weight) for weight in weights)
        return index, weight_lr, weight_hr

    def _folded(
        self, features: Map, index: NDArray[np.int32], weight_lr: Map, weight_hr: Map, field: Box
    ) -> tuple[Map, Map]:
        """Return f_lr (1, C, h, w) and f_hr (s * h, s * w, C) of the field: one neighbor after another, in bands."""
        facts, s = self._facts, self._facts.graph_scale
        height, width = features.shape[2:]
        n1, n2 = height // s // 2, width // s // 2
        counts = {"queries": index[0].size, "keys": n1 * n2}
        rows = {
            f"{of}_{what}": np.empty((count, 1, facts.channels), np.float32)
            for of, count in counts.items()
            for what in ("mean", "std")
        }
        rows["block_rows"] = np.empty(((2 * n1 + 1) * (2 * n2 + 1), s * s, facts.channels), np.float32)
        self._run("statistics", {"features": features}, rows)
        h, w = field.height, field.width
        f_hr = np.zeros((s * h, s * w, facts.channels), np.float32)
        f_lr, reduced = (np.zeros((1, facts.channels, h, w), np.float32) for _ in range(2))
        for r in range(facts.neighbors):
            for band, seen, last in self._bands(field, 2):
                new = np.empty((s * seen.height, s * w, facts.channels), np.float32)
                low = np.empty((1, facts.channels, seen.height, w), np.float32)
                inside, inner = seen.within(field), band.within(seen)
                given = {
                    **rows,
                    "index": index[r],
                    "size": np.array([height, width]),
                    "box": np.array([seen.top, seen.left, seen.height, seen.width]),
                    "weight": inside.of(weight_hr[:, r : r + 1]),
                    "sum": f_hr[s * inside.top : s * inside.bottom],
                }
                self._run("fold", given, {"new_sum": new, "reduced": low}, last=last)
                place = band.within(field)
                f_hr[s * place.top : s * place.bottom] = new[s * inner.top : s * inner.bottom]
                _put(reduced, place, low, inner)
            for band, seen, last in self._bands(field, 2):
                share = np.empty((1, facts.channels, seen.height, w), np.float32)
                inside, inner, place = seen.within(field), band.within(seen), band.within(field)
                given = {"reduced": inside.of(reduced), "weight": inside.of(weight_lr[:, r : r + 1])}
                self._run("downsample", given, {"share": share}, last=last)
                f_lr[:, :, place.top : place.bottom] += share[:, :, inner.top : inner.bottom]
        return f_lr, f_hr

    def _output(self, deep: Map, f_hr: Map, field: Box, kept: Box) -> Iterator[tuple[Box, Map]]:
        """Yield parts of the result, (1, 3, scale * h, scale * w), with the LR box that each is of."""
        s, scale, halo = self._facts.graph_scale, self._scale, self._facts.output_halo
        for band, _, last in self._bands(kept, halo):
            seen = band.grown(halo, 1, (field.bottom, field.right), (field.top, field.left))
            inside, inner = seen.within(field), band.within(seen)
            sr = np.empty((1, 3, scale * seen.height, scale * seen.width), np.float32)
            large = f_hr[s * inside.top : s * inside.bottom, s * inside.left : s * inside.right]
            given = {"deep": inside.of(deep), "f_hr": np.ascontiguousarray(large)}
            self._run("output", given, {"sr": sr}, last=last)
            rows = slice(scale * inner.top, scale * inner.bottom)
            yield band, sr[:, :, rows, scale * inner.left : scale * inner.right]

    def _bands(self, box: Box, halo: int) -> Iterator[tuple[Box, Box, bool]]:
        """Yield bands of rows, each with what lies `halo` rows around it in the box, and whether it is the last."""
        count = -(-box.height // self._facts.band_rows(box.width))
        rows = -(-box.height // (count * 2)) * 2
        for first in range(box.top, box.bottom, rows):
            band = box.rows(first, first + rows)
            yield band, box.rows(first - halo, band.bottom + halo), band.bottom == box.bottom

    def _run(
        self, stage: str, inputs: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]], *, last: bool = True
    ) -> None:
        """Run a stage on arrays of ours, into arrays of ours: nothing is copied."""
        session = self._sessions[stage]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        for name, value in outputs.items():
            binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        session.run_with_iobinding(binding, self._last_options if last else self._band_options)
        if last:
            return_freed_memory()  # the C library would keep it for blocks of the same size


def _put(target: Map, place: Box, rows: Map, inner: Box) -> None:
    """Store the inner rows of a band in the rows of a map."""
    target[:, :, place.top : place.bottom] = rows[:, :, inner.top : inner.bottom]

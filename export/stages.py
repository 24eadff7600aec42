"""The network in stages: functions that ONNX Runtime's CPU provider runs one after another, each on what it needs.

As one graph the network holds maps at output size for all of a crop, and computes everything on the crop's context. Of
the context only the first layers and the search window need all. So the file carries, beside its graph, one function
for each stage, which refers to the graph's weights: `runtime.backends.stages` makes a model of each, and runs

- `neighbors` and `features` on the crop, the search for the queries of the tile and a little around it;
- `fold` and `downsample` in bands of rows, one neighbor after another, with the statistics that `statistics` gives;
- `fuse`, in bands, and `body` on the tile and a little around it;
- `output` in bands of the tile's rows.

Other runtimes take the graph and never look at these functions. The numbers are the graph's, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import adapn_gather_body, patch_statistics_body, windowed_knn_body
from export.body_text import parse
from export.functions import DOMAIN, OPSET
from export.network import EdgeWeights, SumConv
from export.tracing import traced
from runtime.metadata import STAGES
from train import IGNN
from train.config import EMBEDDING_CHANNELS
from train.graph_agg import ADAPN_EPS

_LEAST_ELEMENTS = 256
"""Smaller weights are part of the functions; as few are those that `export.precision` leaves as they are."""

_FLOAT, _INT32, _INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def add_stages(model: onnx.ModelProto, net: IGNN) -> None:
    """Add the stages of a network with a graph to its exported model, whose graph stays as it is."""
    names = _names_of_weights(model.graph)
    config = net.config
    s, C, k = config.graph_scale, config.channels, config.neighbors
    lr: _Tensor = ("lr", _FLOAT, [1, 3, "H", "W"])
    whole, large = [1, C, "H", "W"], ["sH", "sW", C]
    rows: list[_Tensor] = [
        ("block_rows", _FLOAT, ["blocks", s * s, C]),
        *((name, _FLOAT, [of, 1, C]) for of in ("queries", "keys") for name in (f"{of}_mean", f"{of}_std")),
    ]
    dims = {name: torch.export.Dim(name, min=low, max=4096) for name, low in (("H", 4), ("W", 4), ("m1", 2), ("m2", 2))}
    H, W, m1, m2 = dims.values()
    image, grid = {2: H, 3: W}, {3: m1, 4: m2}
    sized = {0: s * H, 1: s * W}
    some, some_large = torch.zeros(1, C, 14, 18), torch.zeros(14 * s, 18 * s, C)
    weight = torch.zeros(1, 1, 14, 18)

    stage = _Stage("neighbors", names)
    stage.trace(_Embed(net), {"lr": (torch.zeros(1, 3, 37, 41), image)}, ["query", "key"])
    stage.slice("query", "query_box", "pixels")
    stage.node("BoxedKnn", ["query_box", "key", "origin"], ["index", "edge"], k=k, window=config.window, scale=s)
    stage.trace(
        _Weights(net), {"edge": (torch.zeros(1, k, EMBEDDING_CHANNELS, 9, 11), grid)}, ["weight_lr", "weight_hr"]
    )
    stage.add_to(
        model,
        [lr, ("pixels", _INT64, [4]), ("origin", _INT64, [2])],
        [
            ("index", _INT32, [1, "m1", "m2", k]),
            *((name, _FLOAT, [1, k, "h", "w"]) for name in ("weight_lr", "weight_hr")),
        ],
    )

    stage = _Stage("features", names)
    stage.trace(_Features(net), {"lr": (torch.zeros(1, 3, 37, 41), image)}, ["x", "features"])
    stage.add_to(model, [lr], [("x", _FLOAT, whole), ("features", _FLOAT, whole)])

    stage = _Stage("statistics", names)
    stage.node("PatchStatistics", ["features"], [name for name, _, _ in rows], scale=s, eps=ADAPN_EPS)
    stage.add_to(model, [("features", _FLOAT, whole)], rows)

    stage = _Stage("fold", names)
    stage.node("FoldBox", [*(name for name, _, _ in rows), "index", "size", "box"], ["folded"], scale=s)
    stage.trace(
        _Reduce(net),
        {"folded": (some_large, sized), "weight": (weight, image), "sum": (some_large.clone(), sized)},
        ["new_sum", "reduced"],
    )
    stage.add_to(
        model,
        [
            *rows,
            ("index", _INT32, ["m1", "m2"]),
            ("size", _INT64, [2]),
            ("box", _INT64, [4]),
            ("weight", _FLOAT, [1, 1, "H", "W"]),
            ("sum", _FLOAT, large),
        ],
        [("new_sum", _FLOAT, large), ("reduced", _FLOAT, whole)],
    )

    stage = _Stage("downsample", names)
    stage.trace(
        _Downsample(net),
        {"reduced": (some, image), "weight": (weight, image)},
        ["share"],
    )
    stage.add_to(
        model,
        [("reduced", _FLOAT, whole), ("weight", _FLOAT, [1, 1, "H", "W"])],
        [("share", _FLOAT, whole)],
    )

    for name, module, given, result in (
        ("fuse", _Fuse(net), ("features", "f_lr"), "fused"),
        ("body", _Body(net), ("x", "fused"), "deep"),
    ):
        stage = _Stage(name, names)
        stage.trace(module, {value: (some.clone(), image) for value in given}, [result])
        stage.add_to(model, [(value, _FLOAT, whole) for value in given], [(result, _FLOAT, whole)])

    stage = _Stage("output", names)
    stage.trace(_Output(net), {"deep": (some, image), "f_hr": (some_large, sized)}, ["sr"])
    stage.add_to(model, [("deep", _FLOAT, whole), ("f_hr", _FLOAT, large)], [("sr", _FLOAT, [1, 3, "srH", "srW"])])
    texts = (
        windowed_knn_body.box_text(),
        patch_statistics_body.stage_text(),
        adapn_gather_body.box_text(),
    )
    model.functions.extend(parse(text, DOMAIN, OPSET) for text in texts)
    model.opset_import.append(helper.make_opsetid(STAGES, 1))


class _Embed(nn.Module):
    """`lr` to the maps that neighbors are searched in, with the padding of small images."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.net = net

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.embedding(lr), self.net.embedding(self.net.reduce(lr))


class _Weights(nn.Module):
    """Edge labels of a box of queries to the neighbors' weights."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.edge_weights = EdgeWeights(net.gcn.weightnet_lr, net.gcn.weightnet_hr)

    def forward(self, edge: Tensor) -> list[Tensor]:
        return self.edge_weights(edge, 2 * edge.shape[3] + 1, 2 * edge.shape[4] + 1)


class _Features(nn.Module):
    """`lr` to the backbone's features before the graph."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.net = net

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        x = self.net.head(lr - self.net.mean)
        return x, self.net.body1(x)


class _Reduce(nn.Module):
    """A band of a folded neighbor, (sH, sW, C): add its share to f_hr, and reduce it to LR size."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.first, self.scale = net.gcn.knn_downsample[0], net.config.graph_scale

    def forward(self, folded: Tensor, weight: Tensor, sum: Tensor) -> tuple[Tensor, Tensor]:
        weight = F.interpolate(weight, scale_factor=self.scale, mode="nearest")
        share = weight.reshape(folded.shape[0], folded.shape[1], 1) * folded
        return sum + share, self.first(folded[None].permute(0, 3, 1, 2))


class _Downsample(nn.Module):
    """The rest of the way of a neighbor to LR size: its share of f_lr."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.rest = net.gcn.knn_downsample[1:]

    def forward(self, reduced: Tensor, weight: Tensor) -> Tensor:
        return weight * self.rest(reduced)


class _Fuse(nn.Module):
    """Rows of the features and of f_lr to the second half of the body's input."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.first, self.second = SumConv(cast(nn.Conv2d, net.fuse_b.get_submodule("0.0"))), net.fuse_b[1]

    def forward(self, features: Tensor, f_lr: Tensor) -> Tensor:
        return self.second(F.relu(self.first(features, f_lr)))


class _Body(nn.Module):
    """The second half of the body."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.body2 = net.body2

    def forward(self, x: Tensor, fused: Tensor) -> Tensor:
        return x + self.body2(fused)


class _Output(nn.Module):
    """Rows of what the body gives, and of f_hr (sH, sW, C), to `sr`."""

    def __init__(self, net: IGNN) -> None:
        super().__init__()
        self.net = net
        self.fuse_up = SumConv(cast(nn.Conv2d, net.fuse_up.get_submodule("0.0")))

    def forward(self, deep: Tensor, f_hr: Tensor) -> Tensor:
        up = self.fuse_up(self.net.upsample(deep), f_hr[None].permute(0, 3, 1, 2))
        return self.net.tail(self.net.fuse_up[1](F.relu(up))) + self.net.mean


def _names_of_weights(graph: onnx.GraphProto) -> dict[bytes, str]:
    """Return the names of the graph's weights by their content, those that are stored as float16 by that name."""
    widened = {node.input[0] for node in graph.node if node.op_type == "Cast" and node.input[0].endswith(".fp16")}
    names = {}
    for item in graph.initializer:
        value = numpy_helper.to_array(item)
        if value.size >= _LEAST_ELEMENTS and (value.dtype == np.float32 or item.name in widened):
            names[value.astype(np.float32).tobytes()] = item.name
    return names


_Tensor = tuple[str, int, Sequence[Any]]
"""Name, ONNX type and shape."""


class _Stage:
    """A stage under construction: nodes, and the weights of the graph that they refer to.

    Args:
        name: of the stage.
        weights: names of the graph's weights by content.
    """

    def __init__(self, name: str, weights: dict[bytes, str]) -> None:
        self._name, self._weights = name, weights
        self._nodes: list[onnx.NodeProto] = []
        self._used: list[str] = []

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: float) -> None:
        """Add a call of an operator of ours."""
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=DOMAIN, **cast(Any, attributes)))

    def slice(self, source: str, result: str, pixels: str) -> None:
        """Add a slice of a map (1, C, H, W): `pixels` is [top, left, bottom, right]."""
        split = self._constant(f"{result}_split", np.array([2, 2]))
        axes = self._constant(f"{result}_axes", np.array([2, 3]))
        ends = [f"{result}_first", f"{result}_last"]
        self._nodes.append(helper.make_node("Split", [pixels, split], ends, axis=0))
        self._nodes.append(helper.make_node("Slice", [source, *ends, axes], [result]))

    def trace(self, module: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Any]]], outputs: list[str]) -> None:
        """Add what a module computes. Inputs: an example each, and its free dimensions."""
        graph = traced(
            module,
            tuple(example for example, _ in inputs.values()),
            tuple(free for _, free in inputs.values()),
            list(inputs),
            outputs,
        ).graph
        prefix = f"{self._name}_{len(self._nodes)}_"
        renamed = {name: name for name in (*inputs, *outputs)}
        for item in graph.initializer:
            renamed[item.name] = self._weight(numpy_helper.to_array(item), prefix + item.name)
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [renamed.get(name, prefix + name) if name else "" for name in names]
            node.name = prefix + node.name
            node.doc_string = ""
            del node.metadata_props[:]
            self._nodes.append(node)

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
        return name

    def _weight(self, value: np.ndarray, name: str) -> str:
        """Return the name under which the function has a weight: the graph's if it is large."""
        if value.dtype != np.float32 or value.size < _LEAST_ELEMENTS:
            return self._constant(name, value)
        stored = self._weights[value.tobytes()]
        if stored not in self._used:
            self._used.append(stored)
        if not stored.endswith(".fp16"):
            return stored
        self._nodes.append(helper.make_node("Cast", [stored], [name], to=_FLOAT))
        return name

    def add_to(self, model: onnx.ModelProto, inputs: list[_Tensor], outputs: list[_Tensor]) -> None:
        """Add the stage to a model as a function: its inputs, then the weights; their types are its value_info."""
        function = helper.make_function(
            STAGES,
            self._name,
            [*(name for name, _, _ in inputs), *self._used],
            [name for name, _, _ in outputs],
            self._nodes,
            [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        )
        function.value_info.extend(helper.make_tensor_value_info(*value) for value in (*inputs, *outputs))
        model.functions.append(function)

"""Half precision: what a file computes in and how it stores its weights."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from train import IGNN

_LEAST_ELEMENTS = 256
"""Smaller initialisers (shapes, biases, constants) are not worth a node."""


def round_weights(net: IGNN) -> IGNN:
    """Return a copy whose parameters, the frozen embedding's too, are rounded to float16 and kept as float32."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half().float())
    return net


def store_weights_as_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store in half the space, as float16 behind a Cast to float32, every weight that loses nothing by it.

    Runtimes fold the Cast when they load the file, so that it computes in float32 as fast as before.
    """
    casts = []
    for initializer in model.graph.initializer:
        if initializer.data_type != onnx.TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(initializer)
        half = value.astype(np.float16)
        if value.size < _LEAST_ELEMENTS or (half.astype(np.float32) != value).any():
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}.fp16"], [name], name=f"widen {name}", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make the convolutions, what lies between them, and the graph construction compute in float16.

    Float32 remain: the model's input and output and the shift by their mean (float16 knows 255 to 0.125 only); the
    embedding; the softmax; and what KeyStatistics gives. WindowedKnn takes the embedding's maps rounded to float16,
    which the tensor cores multiply; its distances, and the statistics of AdaPN, are summed in float32 inside the
    operators.
    """
    graph = model.graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    floats = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    floats |= {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    floats -= {name for node in graph.node if node.op_type == "KeyStatistics" for name in node.output}
    half_nodes = [index for index in sorted(_between_convolutions(graph)) if _floats_in(graph.node[index], floats)]
    made_half = {name for index in half_nodes for name in graph.node[index].output if name in floats}

    nodes: list[onnx.NodeProto] = []
    casts: dict[tuple[str, int], str] = {}
    initializers = {item.name: item for item in graph.initializer}
    for index, node in enumerate(graph.node):
        wanted = onnx.TensorProto.FLOAT16 if index in half_nodes else onnx.TensorProto.FLOAT
        for position in _floats_in(node, floats):
            name = node.input[position]
            if (name in made_half) == (wanted == onnx.TensorProto.FLOAT16):
                continue
            if (name, wanted) not in casts:
                casts[name, wanted] = f"{name}.{'fp16' if wanted == onnx.TensorProto.FLOAT16 else 'fp32'}"
                if name in initializers:
                    value = numpy_helper.to_array(initializers[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(value, casts[name, wanted]))
                else:
                    nodes.append(onnx.helper.make_node("Cast", [name], [casts[name, wanted]], to=wanted))
            node.input[position] = casts[name, wanted]
        nodes.append(node)
    for value in graph.value_info:
        if value.name in made_half:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    used = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return what `to_half` made as a model that rounds to float16 where that one stores float16.

    ONNX Runtime's CPU provider computes the half model in float32 and drops the casts between, so that no rounding
    shows. Here each tensor that is float16 in the half model is float32, rounded to float16 by a pair of casts that
    ONNX Runtime keeps. Sums are float32, as those of the tensor cores are.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    typed = [*graph.value_info, *graph.input, *graph.output]
    half = {value.name for value in typed if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    for item in graph.initializer:
        if item.data_type == onnx.TensorProto.FLOAT16:
            half.add(item.name)
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), item.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT16:
            half.add(node.output[0])
            node.op_type = "Identity"  # what follows rounds
            del node.attribute[:]
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name in half:
                node.output[position] = f"{name}.exact"
                nodes += [
                    onnx.helper.make_node("Cast", [f"{name}.exact"], [f"{name}.half"], to=onnx.TensorProto.FLOAT16),
                    onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT),
                ]
    for value in graph.value_info:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _floats_in(node: onnx.NodeProto, floats: set[str]) -> list[int]:
    """Return the positions of a node's float maps and weights; the factors of Resize are float32 in any case."""
    inputs = node.input[:1] if node.op_type == "Resize" else node.input
    return [position for position, name in enumerate(inputs) if name in floats]


def _between_convolutions(graph: onnx.GraphProto) -> set[int]:
    """Return the indices of the convolutions after the embedding, of the nodes between them but for the softmax, and of
    the graph construction.
    """
    consumers: dict[str, list[int]] = {}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.input:
            consumers.setdefault(name, []).append(index)
        for name in node.output:
            producer[name] = index

    def reach(start: set[int], *, forward: bool) -> set[int]:
        found, front = set(start), list(start)
        while front:
            node = graph.node[front.pop()]
            near = (
                (index for name in node.output for index in consumers.get(name, []))
                if forward
                else (producer[name] for name in node.input if name in producer)
            )
            for index in near:
                if index not in found:
                    found.add(index)
                    front.append(index)
        return found

    construction = {index for index, node in enumerate(graph.node) if node.op_type == "WindowedKnn"}
    kept = reach(construction, forward=False)
    convolutions = {index for index, node in enumerate(graph.node) if node.op_type == "Conv"} - kept
    between = reach(convolutions | construction, forward=True) & reach(convolutions, forward=False)
    return {index for index in between - kept if graph.node[index].op_type != "Softmax"} | construction

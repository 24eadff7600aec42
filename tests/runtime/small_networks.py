"""Small ONNX networks with our metadata, whose receptive field and grid are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ModelFactory = Callable[..., Path]
"""Writes a small network; arguments are those of `make_network`, then metadata."""

METADATA = {
    "format": "1",
    "name": "test",
    "scale": "2",
    "graph_scale": "2",
    "window": "3",
    "k": "5",
    "value_range": "0..255",
    "color": "RGB",
    "halo": "8",
    "tile_multiple": "4",
    "precision": "fp32",
    "bytes_per_pixel": "2000",
    "config": "{}",
    "weights_sha256": "0" * 64,
    "version": "0.1.0",
}


def make_network(
    scale: int = 2, *, convolutions: int = 3, width: int = 3, grid: int = 4, gain: float = 1.0, noise: float = 0.02
) -> onnx.ModelProto:
    """`convolutions` 3x3 convolutions of `width` channels, plus a maximum over `grid` x `grid` cells (so that tile
    origins matter), enlarged by pixel shuffle. Context: `convolutions` pixels, then up to the end of a grid cell."""
    rng = np.random.default_rng(scale)
    constants = {
        "four": np.array([1, 1, grid, grid], np.float32),
        "begin": np.array([0, 0], np.int64),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = []
    last = "lr"
    for index in range(convolutions):
        weight = rng.normal(0, noise, (width, 3 if index == 0 else width, 3, 3)).astype(np.float32)
        weight[range(3), range(3), 1, 1] += (0.8 if noise else 1) * gain
        constants[f"w{index}"] = weight
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1] * 4))
        last = f"c{index}"
    head = rng.normal(0, noise, (3 * scale * scale, width, 1, 1)).astype(np.float32)
    for channel in range(3):
        head[channel * scale * scale : (channel + 1) * scale * scale, channel] += 1
    constants["head"] = head
    nodes += [
        helper.make_node("MaxPool", [last], ["cells"], kernel_shape=[grid] * 2, strides=[grid] * 2, ceil_mode=1),
        helper.make_node("Resize", ["cells", "", "four"], ["wide"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric"),
        helper.make_node("Shape", ["lr"], ["size"], start=2),
        helper.make_node("Slice", ["wide", "begin", "size", "axes"], ["cut"]),
        helper.make_node("Mean", [last, "cut"], ["mixed"]),
        helper.make_node("Conv", ["mixed", "head"], ["deep"]),
        helper.make_node("DepthToSpace", ["deep"], ["sr"], blocksize=scale, mode="CRD"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "sh", "sw"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_model(path: Path, network: onnx.ModelProto, **metadata: str | None) -> Path:
    """Write a network with our metadata; a value of None leaves the entry out."""
    entries = {**METADATA, **metadata}
    helper.set_model_props(network, {f"ignn.{key}": value for key, value in entries.items() if value is not None})
    onnx.save(network, path)
    return path


def make_nearest(scale: int = 2) -> onnx.ModelProto:
    """The network that repeats each pixel `scale` x `scale` times: every value of its result is known."""
    factors = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "factors")
    resize = helper.make_node(
        "Resize", ["lr", "", "factors"], ["sr"], mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    graph = helper.make_graph(
        [resize],
        "nearest",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["n", 3, "sh", "sw"])],
        [factors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

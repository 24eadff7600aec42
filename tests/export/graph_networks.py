"""A network with all graph operators, small enough to write by hand: no tracing, which takes longer than the build."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def graph_network(scale: int = 2, *, precision: str = "fp32", domain: str = "ignn") -> bytes:
    """`lr` (N, 3, H, W) to `sr` (N, 3, scale*H, scale*W): a convolution to 8 channels, neighbors, their folded map, a
    convolution. It does not pad: the plugins refuse maps with fewer key patches than k."""
    half = precision == "fp16"
    element, dtype = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.normal(0, 0.1, (8, 3, 3, 3)).astype(dtype),
        "w1": rng.normal(0, 0.1, (3, 8, 3, 3)).astype(dtype),
        "zero": np.array(0, np.int64),
    }
    plugin = {"plugin_namespace": "ignn", "plugin_version": "1"}
    nodes = [
        helper.make_node("Cast", ["lr"], ["typed"], to=element),
        helper.make_node("Conv", ["typed", "w0"], ["features"], pads=[1] * 4),
        helper.make_node("AveragePool", ["features"], ["key"], kernel_shape=[scale] * 2, strides=[scale] * 2),
        helper.make_node(
            "WindowedKnn", ["features", "key"], ["index", "edge"], domain=domain, k=5, window=30, scale=scale, **plugin
        ),
        helper.make_node("Gather", ["index", "zero"], ["first"], axis=3),
        helper.make_node(
            "KeyStatistics", ["features"], ["mean", "std"], domain=domain, scale=scale, eps=1e-5, **plugin
        ),
        helper.make_node(
            "AdaPNGather",
            ["features", "mean", "std", "first"],
            ["folded"],
            domain=domain,
            scale=scale,
            eps=1e-5,
            **plugin,
        ),
        helper.make_node("Conv", ["folded", "w1"], ["deep"], pads=[1] * 4),
        helper.make_node("Cast", ["deep"], ["sr"], to=TensorProto.FLOAT),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(domain, 1)]
    bodies = [
        helper.make_function(
            domain, "WindowedKnn", ["q", "k_"], ["i", "e"],
            [helper.make_node("Identity", ["q"], ["e"]), helper.make_node("Shape", ["k_"], ["i"])],
            opsets[:1], ["k", "window", "scale"],
        ),
        helper.make_function(
            domain, "KeyStatistics", ["x"], ["m", "d"],
            [helper.make_node("Identity", ["x"], ["m"]), helper.make_node("Identity", ["x"], ["d"])],
            opsets[:1], ["scale", "eps"],
        ),
        helper.make_function(
            domain, "AdaPNGather", ["f", "a", "b", "j"], ["o"], [helper.make_node("Identity", ["f"], ["o"])],
            opsets[:1], ["scale", "eps"],
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("lr", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("sr", TensorProto.FLOAT, ["N", 3, "sH", "sW"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=10)
    helper.set_model_props(model, {"ignn.format": "1", "ignn.precision": precision, "ignn.halo": "8"})
    return model.SerializeToString()

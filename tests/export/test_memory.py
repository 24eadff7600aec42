"""The memory that `tile="auto"` reckons with."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from export.check import ExportError
from export.memory import measure_bytes_per_pixel


@pytest.mark.parametrize("loaded_values", [1, 60_000_000], ids=["little", "much"])
def test_maps_that_live_at_once_are_counted_whatever_is_held_besides(tmp_path, loaded_values) -> None:
    """32 float32 maps in and 32 out of a convolution, at three quarters of a gigabyte of memory of our own.

    The model's file holds values that loading reduces to one: the peak of loading is not that of a run.
    """
    ours = np.ones(750_000_000, np.uint8)
    weights = {
        "w_a": np.ones((32, 3, 1, 1), np.float32),
        "w_b": np.ones((32, 32, 3, 3), np.float32),
        "w_c": np.ones((3, 32, 1, 1), np.float32),
        "values": np.ones(loaded_values, np.float32),
    }
    names = ["lr", "a", "b", "c"]
    nodes = [helper.make_node("Conv", [x, f"w_{y}"], [y], auto_pad="SAME_UPPER") for x, y in pairwise(names)]
    nodes += [helper.make_node("ReduceMax", ["values"], ["most"]), helper.make_node("Add", ["c", "most"], ["sr"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "H", "W"]) for name in ("lr", "sr")]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "maps", infos[:1], infos[1:], tensors)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    found = measure_bytes_per_pixel(tmp_path / "m.onnx")
    assert 2 * 32 * 4 * 0.7 < found < 2 * 32 * 4 * 3
    assert ours.all()


def test_what_cannot_be_run_is_an_error(tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="Measuring the memory"):
        measure_bytes_per_pixel(tmp_path / "m.onnx")

"""Functions put in place of their calls without the `onnx` package, against ONNX's own inliner."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
from damage import damaged
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from runtime.backends.inlining import inline
from runtime.errors import ModelLoadError
from runtime.models import find_model

NESTED = """
<ir_version: 10, opset_import: ["": 20, "a": 1, "b": 1]>
main (float[N] x, bool yes) => (float[N] y, float[N] z) {
    inlined_1 = Abs (x)
    t = a.outer <slope = 0.5> (inlined_1, yes)
    y = a.outer (t, yes)
    z = b.optional (y, , x)
}
<domain: "a", opset_import: ["": 20, "b": 1]>
outer <slope: float = 0.25> (x, yes) => (y) {
    limit = Constant <value = float {2.0}> ()
    t = b.inner <alpha: float = @slope> (x)
    y = If (yes) <
        then_branch = then () => (float[N] u) { v = b.inner <alpha: float = @slope> (t)  u = Add (v, limit) },
        else_branch = other () => (float[N] u) { u = Mul (t, x) }
    >
}
<domain: "b", opset_import: ["": 20]>
inner <alpha> (x) => (y) { t = Neg (x)  y = LeakyRelu <alpha: float = @alpha> (t) }
<domain: "b", opset_import: ["": 20]>
optional (x, low, high) => (y, unused) { y = Clip (x, low)  t = Add (y, high)  unused = Neg (t) }
"""

CIRCLE = """
<ir_version: 10, opset_import: ["": 20, "a": 1]>
main (float[N] x) => (float[N] y) { y = a.one (x) }
<domain: "a", opset_import: ["": 20, "a": 1]> one (x) => (y) { y = a.two (x) }
<domain: "a", opset_import: ["": 20, "a": 1]> two (x) => (y) { y = a.one (x) }
"""


def run(model: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)


@pytest.fixture(scope="module")
def nested() -> bytes:
    model = parser.parse_model(NESTED)
    model.graph.node[-1].output.append("")  # an output that the call leaves out
    return model.SerializeToString()


@pytest.mark.parametrize("yes", [True, False])
def test_functions_of_functions_in_branches(nested: bytes, yes: bool) -> None:
    inlined = inline(nested, source="m.onnx")
    model = onnx.load_from_string(inlined)
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    inputs = {"x": np.array([-3, 0.5, 2], np.float32), "yes": np.array(yes)}
    for actual, expected in zip(run(inlined, inputs), run(nested, inputs), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_the_bundled_network_as_onnx_inlines_it() -> None:
    content = find_model("ignn-s-x2").checked_path().read_bytes()
    inlined = inline(content, source="m.onnx")
    model, expected = (
        onnx.load_from_string(inlined),
        onnx.inliner.inline_local_functions(onnx.load_from_string(content)),
    )
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in expected.graph.node]
    assert not model.functions
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert list(model.metadata_props) == list(expected.metadata_props)
    assert list(model.graph.initializer) == list(expected.graph.initializer)
    lr = np.random.default_rng(0).uniform(0, 255, (1, 3, 21, 34)).astype(np.float32)
    np.testing.assert_array_equal(run(inlined, {"lr": lr})[0], run(content, {"lr": lr})[0])


def test_a_file_without_functions_stays(x2_model) -> None:
    content = x2_model.read_bytes()
    assert inline(content, source="m.onnx") is content


def test_functions_without_end() -> None:
    model = parser.parse_model(CIRCLE)
    with pytest.raises(ModelLoadError, match=r"m.onnx: its function (one|two) calls itself"):
        inline(model.SerializeToString(), source="m.onnx")
    for level in range(20):  # each calls the next twice: a million nodes
        inner = f"a.level{level + 1} (x) t = a.level{level + 1} (x)" if level < 19 else "Neg (x)"
        text = f'<domain: "a", opset_import: ["": 20, "a": 1]> level{level} (x) => (y) {{ y = {inner} }}'
        model.functions.append(parser.parse_function(text))
    model.graph.node[0].op_type = "level0"
    with pytest.raises(ModelLoadError, match="or too many others"):
        inline(model.SerializeToString(), source="m.onnx")


@given(data=st.data())
def test_a_damaged_file_is_named(nested: bytes, data: st.DataObject) -> None:
    try:
        inline(damaged(nested, data), source="m.onnx")
    except ModelLoadError:
        return

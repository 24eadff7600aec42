"""What tools of others make of an exported file: it still runs, and computes the same."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from shared_exports import Exported

from export.functions import functions
from export.sample import sample


def run(model: Path | onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    (sr,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["sr"], {"lr": lr})
    return sr


def slim(path: Path) -> onnx.ModelProto:
    return pytest.importorskip("onnxslim").slim(str(path))


def simplify(path: Path) -> onnx.ModelProto:
    model, _ = pytest.importorskip("onnxsim").simplify(onnx.load(path))
    return model


def sanitize(path: Path) -> onnx.ModelProto:
    """`polygraphy surgeon sanitize`. By default it also infers shapes, which takes minutes."""
    for package in ("onnx_graphsurgeon", "polygraphy"):
        pytest.importorskip(package)
    program = "import sys; from polygraphy.tools._main import main; sys.exit(main())"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "sanitized.onnx")
        options = ["-o", str(output), "--fold-constants", "--no-shape-inference"]
        command = [sys.executable, "-c", program, "surgeon", "sanitize", str(path), *options]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return onnx.load(output)


@pytest.mark.parametrize("tool", [slim, simplify, sanitize])
def test_a_simplified_file_computes_the_same(exported: Exported, tool) -> None:
    _, path = exported("fp32 with half weights")
    model = tool(path)
    onnx.checker.check_model(model, full_check=True)
    if tool is sanitize:  # it drops all metadata, as docs/deployment.md says
        assert not properties(model)
    else:
        assert properties(onnx.load(path)).items() <= properties(model).items()
    assert sum(node.domain == "ignn" for node in model.graph.node) == 7  # TensorRT's plugin still finds them
    lr = sample(2, 33, 46, seed=0)
    np.testing.assert_allclose(run(model, lr), run(path, lr), rtol=0, atol=1e-3)


def properties(model: onnx.ModelProto) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


def constants(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    inner = [node for item in nodes for part in item.attribute if part.HasField("g") for node in part.g.node]
    return [node for node in nodes if node.op_type == "Constant"] + (constants(inner) if inner else [])


def test_constants_of_the_bodies_have_types() -> None:
    """Tools read `value_float` as float64, and ONNX Runtime refuses what they write."""
    for function in functions():
        found = [node.attribute[0] for node in constants(list(function.node))]
        assert len(found) > 20
        assert {item.name for item in found if not item.ref_attr_name} == {"value"}
        # Of integers the type is certain.
        assert {item.type for item in found if item.ref_attr_name} == {onnx.AttributeProto.INT}

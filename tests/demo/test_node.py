"""The exported file in Node: onnxruntime-node, and onnxruntime-web's WebAssembly, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from places import PAGE

from runtime.models import find_model

RUN = """
const {createRequire} = await import('node:module');
const ort = createRequire(input.root)(input.library);
const session = await ort.InferenceSession.create(readFileSync(input.model));
const {sr} = await session.run({lr: new ort.Tensor('float32', Float32Array.from(input.values), input.shape)});
return [sr.dims, Array.from(sr.data)];
"""

REMEDY = {
    "onnxruntime-node": "npm install --ignore-scripts --no-save --prefix docs/demo onnxruntime-node",
    "onnxruntime-web": "npm ci --ignore-scripts --prefix docs/demo",
}


@pytest.mark.parametrize("library", REMEDY)
def test_the_exported_file_in_node(library: str, javascript) -> None:
    if not (PAGE / "node_modules" / library).is_dir():
        pytest.skip(f"needs Node's {library} ({REMEDY[library]})")
    model = find_model("ignn-s-x2").checked_path()
    lr = np.random.default_rng(0).uniform(0, 255, (1, 3, 12, 14)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(["sr"], {"lr": lr})
    given: dict[str, object] = {"root": str(Path(PAGE, "node_modules")) + "/", "library": library, "model": str(model)}
    given |= {"values": lr.ravel().tolist(), "shape": list(lr.shape)}
    shape, values = javascript(RUN, given, module="onnx-file.js")
    assert shape == list(expected.shape)
    np.testing.assert_allclose(np.array(values).reshape(shape), expected, rtol=0, atol=0.01)

"""The page's table of runtimes: each row names its test. What is tested nowhere else is tested here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from runtime.backends.inlining import inline
from runtime.models import find_model

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_reference_evaluator() -> None:
    """ONNX's own meaning of every operator, in Python, of the inlined file."""
    content = find_model("ignn-s-x2").checked_path().read_bytes()
    lr = np.random.default_rng(0).uniform(0, 255, (1, 3, 12, 14)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["sr"], {"lr": lr})
    (actual,) = ReferenceEvaluator(onnx.load_from_string(inline(content, source="m"))).run(["sr"], {"lr": lr})
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.01)


def test_every_row_of_the_table_names_its_test() -> None:
    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    table = page.split("| runtime | takes the exported file |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(rows) >= 8
    for runtime, _, result, test in rows:
        assert runtime
        assert result
        if test == "no test":
            continue
        content = (REPOSITORY / test.strip("`")).read_text(encoding="utf-8").lower()
        name = re.match(r"[\w-]+( reference)?", runtime)
        assert name is not None
        assert name.group().lower().replace("onnx reference", "reference") in content, runtime

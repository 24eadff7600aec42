"""ONNX files read without the `onnx` package, against the package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from damage import damaged
from hypothesis import given
from hypothesis import strategies as st

from runtime.backends.onnx_file import read_facts
from runtime.errors import ModelLoadError


def test_it_reads_what_the_package_reads(x2_model: Path) -> None:
    proto = onnx.load(x2_model)
    proto.graph.node.append(onnx.helper.make_node("WindowedKnn", ["a"], ["b"], domain="ignn", k=5))
    proto.graph.node.append(onnx.helper.make_node("WindowedKnn", ["a"], ["c"], domain="other"))
    facts = read_facts(proto.SerializeToString(), source="m.onnx")
    assert facts.properties == {entry.key: entry.value for entry in proto.metadata_props}
    assert facts.operator_calls == {"WindowedKnn": 1}


@given(data=st.data())
def test_a_damaged_file_is_named(x2_model: Path, data: st.DataObject) -> None:
    try:
        read_facts(damaged(x2_model.read_bytes(), data), source="m.onnx")
    except ModelLoadError:
        return


@pytest.mark.parametrize("content", [b"", b"\x00", b"PNG", b"\xff" * 30])
def test_other_files(content: bytes) -> None:
    with pytest.raises(ModelLoadError, match="is not an ONNX file"):
        read_facts(content, source="m.onnx")

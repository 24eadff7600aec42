"""`ignn export --inline`: the same network without functions, and what TensorRT says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from shared_exports import Exported

from export import to_engine, to_onnx
from export.metadata import stage_metadata
from export.sample import sample
from runtime.cli import run_command
from train import save_checkpoint


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_the_same_network_without_functions(
    exported: Exported,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net, default = exported(kind)
    save_checkpoint(net, tmp_path / "net.pt")
    traced = onnx.load(default)
    monkeypatch.setattr(to_onnx, "to_onnx", lambda net: traced)  # tracing takes long, and is tested elsewhere
    monkeypatch.setattr(to_onnx, "to_half", lambda model: model)
    output = tmp_path / "inlined.onnx"
    arguments = ["--checkpoint", str(tmp_path / "net.pt"), "--output", str(output), "--inline", "--precision", kind]
    assert run_command("ignn export", lambda: to_onnx.main(arguments)) == 0
    assert capsys.readouterr().out.count("worst difference") == 3  # the checks read the inlined file
    model = onnx.load(output)
    assert not model.functions
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    kept, facts = ({item.key: item.value for item in of.metadata_props} for of in (onnx.load(default), model))
    for either in (kept, facts):
        assert int(either.pop("ignn.bytes_per_pixel")) > 0  # measured again
    for name in stage_metadata(net.config, 0, 0, 0):  # the stages are functions, for ONNX Runtime alone
        assert (name in kept) == (kind == "fp32")
        assert name not in facts
        kept.pop(name, None)
    assert facts == kept
    lr = sample(2, 21, 34, seed=0)
    expected, actual = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(["sr"], {"lr": lr})[0]
        for path in (default, output)
    )
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("options", [[], ["--no-plugin"]])
def test_an_engine_needs_the_default_file(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    _, default = exported("fp32")
    onnx.save(to_onnx.inline(onnx.load(default)), tmp_path / "inlined.onnx")
    build = [str(tmp_path / "inlined.onnx"), "-o", str(tmp_path / "m.engine"), *options]
    assert run_command("ignn build", lambda: to_engine.main(build)) == 1
    said = capsys.readouterr().err
    assert "inlined.onnx was exported with --inline" in said
    assert "TensorRT needs the default file: ignn export" in said
    assert not (tmp_path / "m.engine").exists()

"""`ignn verify`: runtimes that agree, that do not, and that are not here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("polygraphy")

from export import to_onnx, verify  # noqa: E402
from export.metadata import weights_sha256  # noqa: E402
from export.precision import round_weights  # noqa: E402
from runtime.cli import run_command  # noqa: E402
from runtime.errors import BackendUnavailableError  # noqa: E402

METADATA = {
    "format": "1", "name": "test", "scale": "2", "graph_scale": "2", "window": "3", "value_range": "0..255",
    "color": "RGB", "halo": "4", "tile_multiple": "4", "precision": "fp32", "bytes_per_pixel": "100",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn verify", lambda: verify.main(arguments))


class Enlarger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 12, 3, padding=1)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(self.conv(lr), 2)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network as an ONNX file; its checkpoint is read as the same network in PyTorch."""
    net = Enlarger().eval()
    monkeypatch.setattr(to_onnx, "load_trained", lambda path: net)
    helper = onnx.helper
    constants = {name: value.detach().numpy() for name, value in net.named_parameters()}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["lr", "conv.weight", "conv.bias"], ["deep"], pads=[1] * 4),
            helper.make_node("DepthToSpace", ["deep"], ["sr"], blocksize=2, mode="CRD"),
        ],
        "graph",
        [helper.make_tensor_value_info("lr", onnx.TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("sr", onnx.TensorProto.FLOAT, ["N", 3, "sH", "sW"])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(proto, {f"ignn.{key}": value for key, value in METADATA.items()})
    onnx.save(proto, tmp_path / "m.onnx")
    return str(tmp_path / "m.onnx")


def test_runtimes_that_agree(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([model, "--checkpoint", "c.pt"]) == 0
    output = capsys.readouterr().out
    assert "sr, ONNX Runtime against PyTorch: PSNR " in output
    assert "TensorRT: not run. " in output
    assert "pip install" in output


def write_fingerprint(model: str, fingerprint: str) -> None:
    proto = onnx.load(model)
    onnx.helper.set_model_props(
        proto, {f"ignn.{key}": value for key, value in METADATA.items()} | {"ignn.weights_sha256": fingerprint}
    )
    onnx.save(proto, model)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        (lambda net: net, "weights: the same as those of c.pt"),
        (round_weights, "weights: those of c.pt rounded to float16, as `--weights fp16` stores them"),
        (None, "weights: not known whether those of c.pt: the file has no ignn.weights_sha256"),
    ],
)
def test_the_checkpoint_of_a_file(model: str, capsys: pytest.CaptureFixture[str], weights, line: str) -> None:
    if weights is not None:
        write_fingerprint(model, weights_sha256(weights(to_onnx.load_trained(Path("c.pt")))))
    assert main([model, "--checkpoint", "c.pt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip() == line  # before what is compared


def test_another_checkpoint(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_fingerprint(model, "0" * 64)
    monkeypatch.setattr(verify, "_onnx_runtime", lambda *_: pytest.fail("it ran a comparison that tells nothing"))
    assert main([model, "--checkpoint", "c.pt"]) == 1
    output = capsys.readouterr()
    assert "m.onnx has other weights than c.pt (SHA-256 000000000000..., " in output.err
    assert "ignn export --checkpoint c.pt" in output.err
    assert "against" not in output.out


def test_an_image_of_the_users(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Path(__file__).resolve().parents[2] / "assets" / "sample.png"
    assert main([model, "--checkpoint", "c.pt", "--image", str(sample)]) == 0


def test_a_runtime_that_differs(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tensorrt(*arguments: object) -> np.ndarray:
        return verify._onnx_runtime(Path(model), "m", arguments[-1]) + np.float32(0.5)

    monkeypatch.setattr(verify, "_tensorrt", tensorrt)
    assert main([model]) == 1
    output = capsys.readouterr()
    assert "PyTorch: not run. Give the checkpoint" in output.out
    assert "TensorRT against ONNX Runtime: PSNR 54.2 dB, differences up to 0.5" in output.out
    assert "TensorRT differ from ONNX Runtime by more than rounding explains (under 70 dB)" in output.err


def test_nothing_to_compare(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> np.ndarray:
        raise BackendUnavailableError("No device.")

    monkeypatch.setattr(verify, "_tensorrt", absent)
    assert main([model]) == 1
    output = capsys.readouterr()
    assert "TensorRT: not run. No device." in output.out
    assert "nothing was compared" in output.err


def test_comparison() -> None:
    ones = np.ones((1, 3, 4, 4), np.float32)
    assert verify.compare(ones, ones, 70) == (True, "PSNR inf dB, differences up to 0, 0 on average")
    assert verify.compare(ones, ones[:, :, 1:], 70) == (False, "shape (1, 3, 3, 4), (1, 3, 4, 4) expected")
    assert verify.compare(ones, ones * np.float32("nan"), 70) == (False, "48 values are NaN or infinite")
    dark = verify.compare(ones, ones + np.float32(0.05), 70)  # the peak is white, not the picture's own
    assert dark == (True, "PSNR 74.2 dB, differences up to 0.05, 0.05 on average")
    assert verify.compare(ones, ones + np.float32(0.1), 70)[0] is False


def test_polygraphy_compares_each_output(monkeypatch: pytest.MonkeyPatch) -> None:
    from polygraphy.comparator import Comparator

    ones = np.ones((1, 3, 4, 4), np.float32)
    seen = []
    original = Comparator.compare_accuracy

    def spy(runs, **options):
        seen.append({name: list(iterations[0]) for name, iterations in runs})
        return original(runs, **options)

    monkeypatch.setattr(Comparator, "compare_accuracy", spy)
    assert verify.compare(ones, ones, 70)[0]
    assert seen == [{"expected": ["sr"], "actual": ["sr"]}]


def test_without_polygraphy(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    assert main([model]) == 1
    assert "Comparing needs Polygraphy (polygraphy is missing). Install it with: pip install" in capsys.readouterr().err


def test_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.onnx")]) == 1
    assert "There is no model file" in capsys.readouterr().err

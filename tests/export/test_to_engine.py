"""`ignn build` with the real TensorRT-RTX, which needs no GPU, and our own plugin library."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")

import onnx
from graph_networks import graph_network

from export import to_engine
from runtime.backends import engine_build, tensorrt_library
from runtime.backends.engine_file import read_engine_facts
from runtime.backends.gpus import list_gpus
from runtime.cli import run_command
from runtime.models import BundledModel, bundled_models

REPOSITORY = Path(__file__).resolve().parents[2]
RTX = ["--backend", "tensorrt-rtx", "--compute-capability", "8.6"]
SIZES = ["--min", "1x32x32", "--max", "2x65x80"]


def main(arguments: list[str]) -> int:
    """Run the command as a user does: errors are printed, and the exit code is returned."""
    return run_command("ignn build", lambda: to_engine.main(arguments))


@pytest.fixture(scope="session")
def tensorrt_rtx() -> None:
    for names in (("tensorrt_rtx",), ("tensorrt_rtx_bindings", "onnxruntime_ep_nv_tensorrt_rtx")):
        if all(importlib.util.find_spec(name) for name in names):
            break
    else:
        pytest.skip("TensorRT-RTX is not installed")
    if importlib.util.find_spec("polygraphy") is None:
        pytest.skip("Polygraphy is not installed")


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """$IGNN_PLUGIN, else the plugin library built for one GPU architecture: a tenth of the time of all."""
    if "IGNN_PLUGIN" in os.environ:
        return Path(os.environ["IGNN_PLUGIN"])
    for tool in ("cmake", "nvcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("plugin")
    configure = ["cmake", "-S", str(REPOSITORY / "plugins"), "-B", str(folder), "-DIGNN_ARCHITECTURES=86"]
    for command in (configure, ["cmake", "--build", str(folder), "--target", "ignn_plugin", "--parallel", "2"]):
        completed = subprocess.run(command, capture_output=True, text=True, check=False)
        if "No rule to make target" in completed.stderr:
            pytest.skip("TensorRT's public headers are not installed")
        assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]
    return folder / "libignn_plugin.so"


def write(folder: Path, model: bytes) -> str:
    (folder / "m.onnx").write_bytes(model)
    return str(folder / "m.onnx")


@pytest.mark.usefixtures("tensorrt_rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("scale", [2, 3])
def test_it_builds_and_says_what(
    tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str], scale: int, precision: str
) -> None:
    model, engine = write(tmp_path, graph_network(scale, precision=precision)), tmp_path / "m.engine"
    cache = tmp_path / "timing.cache"
    arguments = [model, "-o", str(engine), "--plugin", str(plugin), "--timing-cache", str(cache), *RTX, *SIZES]
    assert main(arguments) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "minimum 1x32x32, optimum 2x65x80, maximum 2x65x80" in output
    assert "All 3 graph operators are plugin layers; the plugin library is inside the engine." in output
    assert f"Convolutions: 2 in {precision} (in the network, whose types are binding; TensorRT-RTX compiles" in output
    assert plugin.read_bytes() in engine.read_bytes()
    assert cache.stat().st_size > 0
    written = read_engine_facts(engine, engine.read_bytes())
    assert written is not None
    assert (written.model, written.flavor, written.compute_capability) == ("m.onnx", "tensorrt-rtx", "8.6")
    assert written.properties["ignn.precision"] == precision
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"timing.cache.lock"} == {
        "m.engine",
        "m.engine.json",
        "m.onnx",
        "timing.cache",
    }  # Polygraphy keeps its lock


@functools.cache
def exported(scale: int) -> bytes:
    """A small network as the exporter writes it: traced once, which takes longer than the builds."""
    from export.to_onnx import to_onnx
    from train import IGNN, IGNNConfig

    return to_onnx(IGNN(IGNNConfig(scale=scale, channels=8, blocks=2, graph_after=1))).SerializeToString()


@pytest.mark.usefixtures("tensorrt_rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_exported_network_is_built(
    tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str], scale: int, precision: str
) -> None:
    """From one pixel on: the network pads small images before the plugins see them."""
    from export.precision import to_half

    proto = onnx.load_from_string(exported(scale))
    calls = [node.op_type for node in proto.graph.node if node.domain == "ignn"]
    assert sorted(calls) == ["AdaPNGather"] * 5 + ["KeyStatistics", "WindowedKnn"]
    proto = to_half(proto) if precision == "fp16" else proto
    onnx.helper.set_model_props(proto, {"ignn.precision": precision})
    model, engine = write(tmp_path, proto.SerializeToString()), tmp_path / "m.engine"
    assert main([model, "-o", str(engine), "--plugin", str(plugin), *RTX, "--tile", "64"]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "minimum 1x1x1" in output
    assert "All 7 graph operators are plugin layers; the plugin library is inside the engine." in output
    assert plugin.read_bytes() in engine.read_bytes()
    # The embedding and the graph stay in fp32.
    assert re.search(r"Convolutions: \d+ in fp32" + (", [1-9]\\d* in fp16 " if precision == "fp16" else " "), output)


@pytest.mark.usefixtures("tensorrt_rtx")
@pytest.mark.parametrize("bundled", bundled_models(), ids=lambda model: model.name)
def test_a_bundled_model_is_built(
    tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str], bundled: BundledModel
) -> None:
    model, engine = write(tmp_path, bundled.checked_path().read_bytes()), tmp_path / "m.engine"
    expected = {
        "graph": "All 7 graph operators are plugin layers; the plugin library is inside",
        "errors": "All 6 graph operators are plugin layers; the plugin library is inside",
        "plain": "The network has no graph operators and needs no plugin.",
    }
    assert main([model, "-o", str(engine), "--plugin", str(plugin), *RTX]) == 0, capsys.readouterr().err
    assert expected[bundled.kind] in capsys.readouterr().out


@pytest.mark.usefixtures("tensorrt_rtx")
@pytest.mark.parametrize("asked", [False, True])
def test_tf32_only_when_asked(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str], asked: bool) -> None:
    """TensorRT's own default allows it."""
    model, engine = write(tmp_path, graph_network()), tmp_path / "m.engine"
    options = ["--tf32"] if asked else []
    assert main([model, "-o", str(engine), "--plugin", str(plugin), *options, *RTX, *SIZES]) == 0
    assert ("may round to TF32" in capsys.readouterr().out) == asked


@pytest.mark.usefixtures("tensorrt_rtx")
def test_the_plugin_may_stay_outside(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, engine = write(tmp_path, graph_network()), tmp_path / "m.engine"
    assert main([model, "-o", str(engine), "--plugin", str(plugin), "--plugin-outside", *RTX, *SIZES]) == 0
    assert f"the engine needs {plugin} loaded" in capsys.readouterr().out
    assert plugin.read_bytes() not in engine.read_bytes()


def fails(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a build that fails and leaves nothing behind, what was there before included."""
    engine = folder / "m.engine"
    engine.write_bytes(b"what was there")
    before = sorted(path.name for path in folder.iterdir())
    assert main([*arguments, "-o", str(engine)]) == 1
    assert engine.read_bytes() == b"what was there"
    assert sorted(path.name for path in folder.iterdir()) == before
    message = capsys.readouterr().err
    assert message.startswith("ignn build: error: ")
    assert "Traceback" not in message
    return message


@pytest.mark.usefixtures("tensorrt_rtx")
def test_it_builds_from_a_process_that_has_loaded_tensorrt(tmp_path: Path, plugin: Path) -> None:
    """As the native backend does: first use imports TensorRT, then builds."""
    script = (
        "import sys; from runtime.backends.tensorrt_library import import_tensorrt; import_tensorrt('tensorrt-rtx')\n"
        "from export.to_engine import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [write(tmp_path, graph_network()), "-o", str(tmp_path / "m.engine"), "--plugin", str(plugin)]
    command = [sys.executable, "-c", script, *arguments, *RTX, *SIZES]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert completed.returncode == 0, completed.stderr


@pytest.mark.usefixtures("tensorrt_rtx")
def test_a_profile_that_the_plugin_refuses(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path, graph_network())
    message = fails([model, "--plugin", str(plugin), *RTX, "--min", "1x8x8", "--max", "1x64x64"], tmp_path, capsys)
    assert "ignn::WindowedKnn: k must not exceed the key patches in the window" in message
    assert "Check the profile" in message


@pytest.mark.usefixtures("tensorrt_rtx")
def test_a_library_that_is_no_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path, graph_network())
    message = fails([model, "--plugin", model, *RTX, *SIZES], tmp_path, capsys)
    assert f"cannot load the plugin library {model}: it is damaged or was built for another version" in message
    assert engine_build.build_command() in message


@pytest.mark.usefixtures("tensorrt_rtx")
def test_without_the_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bodies of this network are nonsense on purpose: TensorRT refuses them."""
    message = fails([write(tmp_path, graph_network()), "--no-plugin", *RTX, *SIZES], tmp_path, capsys)
    assert "Without the plugin TensorRT-RTX builds the graph operators from their bodies, and could not" in message
    assert engine_build.build_command() in message


@pytest.mark.usefixtures("tensorrt_rtx")
def test_a_compute_capability_that_is_not_supported(
    tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [write(tmp_path, graph_network()), "--plugin", str(plugin), *SIZES, *RTX[:3], "9.0"]
    message = fails(arguments, tmp_path, capsys)
    assert "Invalid --compute-capability (9.0)" in message
    assert "supports 7.5, 8.0, 8.6, 8.9" in message


@pytest.mark.usefixtures("tensorrt_rtx")
def test_fp16_that_is_not(tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that says fp16 and computes in fp32."""
    model = write(
        tmp_path, graph_network().replace(b"\x0eignn.precision\x12\x04fp32", b"\x0eignn.precision\x12\x04fp16")
    )
    message = fails([model, "--plugin", str(plugin), *RTX, *SIZES], tmp_path, capsys)
    assert "says fp16, but none of the convolutions of the network computes in it" in message


def test_the_plugin_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write(tmp_path, graph_network())
    missing = tmp_path / "none.so"
    message = fails([model, "--plugin", str(missing), *RTX], tmp_path, capsys)
    assert f"There is no plugin library {missing}" in message
    assert engine_build.build_command() in message
    monkeypatch.setenv("IGNN_PLUGIN", str(missing))
    assert str(missing) in fails([model, *RTX], tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max", "64x64"], "Invalid --max ('64x64'). Batch, height and width are expected: 1x540x960."),
        (["--max", "1x64x64", "--min", "1x65x64"], "--min must not exceed --opt"),
        (["--max", "65536x64x64"], "Invalid --max (65536x64x64). A batch of at most 65535 is supported"),
        (["--max", "1x65536x65536"], "pictures of at most 2147483520 pixels"),
        (["--max", "1x262141x16"], "and 262140 rows"),
        (["--tile", "0"], "Invalid --tile (0)"),
        (["--tile", "64", "--max", "1x64x64"], "--tile sets --opt and --max"),
        (["--timing-cache", "nowhere/cache"], "its folder does not exist"),
        (["--compute-capability", "sm_86"], "Invalid --compute-capability ('sm_86'). It has the form 8.6."),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    model = write(tmp_path, graph_network())
    assert message in fails([model, "--plugin", model, *RTX, *arguments], tmp_path, capsys)


def test_more_than_the_gpu_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load_from_string(graph_network())
    onnx.helper.set_model_props(proto, {"ignn.bytes_per_pixel": "8000"})
    model = write(tmp_path, proto.SerializeToString())
    monkeypatch.setattr(to_engine, "total_device_memory", lambda: 8 << 30)
    message = fails([model, "--plugin", model, *RTX, "--max", "4x2160x3840"], tmp_path, capsys)
    assert "Invalid --max (4x2160x3840): inputs of this size take at least 66.4 GB, and the GPU has 8.6 GB." in message


@pytest.mark.parametrize(
    ("output", "message"),
    [("none/m.engine", "Folder {folder}/none does not exist. Create it first: mkdir -p"), ("", "it is a folder")],
)
def test_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    model = write(tmp_path, graph_network())
    assert main([model, "--plugin", model, *RTX, "-o", str(tmp_path / output)]) == 1
    assert message.format(folder=tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_an_error_from_inside_does_not_blame_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> dict[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_build, "parser_environment", full)
    model = write(tmp_path, graph_network())
    message = fails([model, "--plugin", model, *RTX], tmp_path, capsys)
    assert "m.engine" not in message
    assert "needs a folder for temporary files, and could not use" in message
    assert "No space left on device). Name another: TMPDIR=FOLDER." in message


def test_links_to_the_providers_libraries_are_no_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the provider makes such links in its own folder."""
    package = tmp_path / "imported_provider"
    package.mkdir()
    (package / "__init__.py").write_text("")
    names = ["libtensorrt_rtx.so.1.7.1", "libtensorrt_onnxparser_rtx.so.1.7.1"]
    for name in names:
        (package / name).write_bytes(b"")
        for link in (name.removesuffix(".7.1"), name.removesuffix(".1.7.1")):
            (package / link).symlink_to(name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tensorrt_library, "_PROVIDER", "imported_provider")
    assert tensorrt_library.provider_libraries() == [package / name for name in names]
    links = tmp_path / "links"
    links.mkdir()
    tensorrt_library.parser_environment("tensorrt-rtx", links)
    assert {link.name: link.resolve().name for link in links.iterdir()} == {
        f"{name.removesuffix('.1.7.1')}{suffix}": name for name in names for suffix in ("", ".1")
    }


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", graph_network()[:-7], b"\xff" * 40])
def test_a_damaged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    assert "not an ONNX file" in fails([write(tmp_path, content), *RTX], tmp_path, capsys)


@pytest.mark.skipif(bool(list_gpus()), reason="a GPU is here")
def test_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path, graph_network())
    assert "--backend tensorrt-rtx --compute-capability 8.6" in fails([model, "--plugin", model], tmp_path, capsys)
    message = fails([model, "--plugin", model, "--backend", "tensorrt-rtx"], tmp_path, capsys)
    assert "say for which to build, --compute-capability 8.6" in message


def test_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no ONNX file" in fails([str(tmp_path / "none.onnx"), *RTX], tmp_path, capsys)

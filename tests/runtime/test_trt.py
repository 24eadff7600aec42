"""The native backend with TensorRT and CUDA faked at the library's edge: what it does with what they answer."""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import Machine, make_engine
from PIL import Image
from small_networks import ModelFactory

from runtime import SuperResolver
from runtime.backends import cuda_pycuda
from runtime.backends.engine_build import BuildRequest, Profile
from runtime.backends.engine_cache import EngineCache, EngineKey
from runtime.backends.engine_file import EngineFacts, facts_path, write_engine_facts
from runtime.backends.onnx_file import read_facts
from runtime.backends.trt import TrtBackend
from runtime.errors import BackendUnavailableError, DeviceMemoryError, EngineError, NonFiniteOutputError, UsageError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

ADVICE = "cmake -S plugins -B build && cmake --build build --parallel"


def engine(gpu: str, profile: Profile) -> bytes:
    return make_engine(gpu, (profile.minimum, profile.optimum, profile.maximum))


def repeated(lr: np.ndarray) -> np.ndarray:
    return lr.repeat(2, 0).repeat(2, 1)


def test_tiles_through_an_engine_of_the_cache(
    machine: Machine, built: list[BuildRequest], x2_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    resolver = SuperResolver(x2_model, backend="tensorrt", tile=48)
    assert resolver.description == "TensorRT 11.1.0 (Fake 3000), engine: fp32, no plugin, built as needed"
    with caplog.at_level(logging.WARNING, "ignn"):
        np.testing.assert_array_equal(resolver(image), repeated(image))
    assert "building an engine of" in caplog.text
    assert [request.profile.maximum for request in built] == [(1, 256, 256)]
    assert not machine.contexts.stack
    assert machine.most_begun == 2  # of the tiles that have neighbors on both sides

    SuperResolver(x2_model, backend="tensorrt")(image)
    assert len(built) == 1  # from the cache


SIDE = 20
PIXELS = 3 * SIDE * SIDE


@pytest.mark.parametrize(
    ("change", "options", "up", "down"),
    [
        (lambda rgb: rgb, {}, PIXELS, 4 * PIXELS + 1),  # and a byte that says whether all is finite
        (lambda rgb: np.dstack([rgb, rgb[..., :1] | 1]), {}, PIXELS, 4 * PIXELS + 1),
        # What is not plain bytes, or is not to be rounded yet, goes as floats.
        (lambda rgb: rgb[..., 0], {}, 4 * PIXELS, 16 * PIXELS),
        (lambda rgb: rgb.astype(np.uint16) * 257, {}, 4 * PIXELS, 16 * PIXELS),
        (lambda rgb: (rgb / 255).astype(np.float32), {}, 4 * PIXELS, 16 * PIXELS),
        (lambda rgb: np.dstack([rgb, rgb[..., :1] & 0]), {}, 4 * PIXELS, 16 * PIXELS),
        (lambda rgb: rgb, {"self_ensemble": True}, 8 * 4 * PIXELS, 8 * 16 * PIXELS),
        (lambda rgb: rgb, {"halo": 0}, 4 * PIXELS, 16 * PIXELS),
    ],
)
def test_bytes_on_the_bus(
    machine: Machine, built: list[BuildRequest], x2_model: Path, change, options: dict, up: int, down: int
) -> None:
    image = change(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    result = SuperResolver(x2_model, backend="tensorrt", **options)(image)
    assert (machine.up, machine.down) == (up, down)
    if image.ndim == 2 or image.shape[2] == 3:
        expected = repeated(image)
        np.testing.assert_allclose(result, expected, atol=0 if image.dtype == np.uint8 else 257e-7 * image.max())


def test_mixed_images_in_one_batch(machine: Machine, built: list[BuildRequest], x2_model: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    images = [rgb, rgb[..., 0], rgb[::-1], rgb.astype(np.uint16) * 257]
    with SuperResolver(x2_model, backend="tensorrt").map(images, batch=2) as results:
        for image, result in zip(images, results, strict=True):
            np.testing.assert_array_equal(result, repeated(image))


def test_a_result_that_is_rounded_and_clamped(machine: Machine, built: list[BuildRequest], x2_model: Path) -> None:
    resolver = SuperResolver(x2_model, backend="tensorrt")
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    machine.added = 60.5
    expected = np.rint(repeated(image).astype(np.float32) + np.float32(60.5)).clip(0, 255)
    np.testing.assert_array_equal(resolver(image), expected.astype(np.uint8))
    machine.added = float("nan")
    with pytest.raises(NonFiniteOutputError, match="gave NaN or infinite values"):
        resolver(image)
    machine.added = 0
    np.testing.assert_array_equal(resolver(image), repeated(image))


@pytest.mark.parametrize("library", ["old.so", "none.so"])
def test_floats_where_the_library_is_not_at_hand(
    machine: Machine, x2_model: Path, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture, library: str
) -> None:
    (tmp_path / "old.so").write_bytes(b"")
    monkeypatch.setenv("IGNN_PLUGIN", str(tmp_path / library))
    with caplog.at_level(logging.WARNING, "ignn"):
        runner = backend(x2_model, engine(machine.gpu, Profile((1, 1, 1), (1, 64, 64), (1, 64, 64))))
        assert not runner.takes_bytes
        for _ in range(3):
            runner.run(np.ones((1, 3, SIDE, SIDE), np.float32))
    assert caplog.text.count("8-bit pictures go to the GPU as floats, four times the bytes.") == 1
    assert ADVICE in caplog.text
    assert machine.up == 3 * 4 * PIXELS


def noise(count: int, height: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, SIDE, 3), np.uint8)


def test_a_graph_for_each_lane_and_shape(machine: Machine, built: list[BuildRequest], x2_model: Path) -> None:
    resolver = SuperResolver(x2_model, backend="tensorrt")

    def run(images: np.ndarray) -> list[str]:
        machine.events.clear()
        for image, result in zip(images, resolver.network.backend.run_all(images[:, None]), strict=True):
            np.testing.assert_array_equal(result[0], repeated(image))
        return [event for event in machine.events if event not in ("up", "down")]

    # Each of the three lanes runs plainly, then is captured, then only replays.
    assert run(noise(8)) == ["run"] * 3 + ["captured", "replay"] * 3 + ["replay"] * 2
    assert run(noise(4)) == ["replay"] * 4
    assert machine.destroyed == 0
    # Another shape has graphs of its own; those of the shape before are gone.
    assert run(noise(4, height=9)) == ["run"] * 3 + ["captured", "replay"]
    assert machine.destroyed == 3
    assert run(noise(1)) == ["run"]
    assert machine.destroyed == 4
    machine.events.clear()
    floats = noise(2).transpose(0, 3, 1, 2).astype(np.float32)  # the same addresses
    for values in floats:
        np.testing.assert_array_equal(resolver.network.backend.run(values[None])[0], values.repeat(2, 1).repeat(2, 2))
    assert machine.events == ["up", "captured", "replay", "down", "up", "replay", "down"]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("capture_fails", "no CUDA graphs: cuStreamEndCapture failed with CUDA error 901"),
        ("launch_fails", "no CUDA graphs: cuGraphLaunch failed with CUDA error 700"),
    ],
)
def test_without_graphs_where_they_fail(
    machine: Machine, built, x2_model: Path, caplog: pytest.LogCaptureFixture, failure: str, message: str
) -> None:
    resolver = SuperResolver(x2_model, backend="tensorrt")
    setattr(machine, failure, True)
    images = noise(8)
    with caplog.at_level(logging.WARNING, "ignn"):
        for image, result in zip(images, resolver.network.backend.run_all(images[:, None]), strict=True):
            np.testing.assert_array_equal(result[0], repeated(image))
    assert caplog.text.count("no CUDA graphs") == 1
    assert message in caplog.text
    assert [event for event in machine.events if event == "run"] == ["run"] * 8


@pytest.mark.parametrize("machine", ["pycuda"], indirect=True)
def test_without_the_drivers_library(machine: Machine, built, x2_model: Path, monkeypatch, caplog) -> None:
    def absent() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda_pycuda, "load_library", absent)
    with caplog.at_level(logging.WARNING, "ignn"):
        resolver = SuperResolver(x2_model, backend="tensorrt")
        for image in noise(5):
            np.testing.assert_array_equal(resolver(image), repeated(image))
    assert caplog.text.count("no CUDA graphs: libcuda.so.1: cannot open shared object file.") == 1


def test_tiles_of_a_stream_are_copied_beside_the_network(
    machine: Machine, built: list[BuildRequest], x2_model: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 400, 3), np.uint8)
    with SuperResolver(x2_model, backend="tensorrt", tile=48).map([image, image]) as results:
        for result in results:
            np.testing.assert_array_equal(result, repeated(image))
    assert machine.most_begun == 3


def test_a_larger_input_has_a_larger_engine(machine: Machine, built: list[BuildRequest], x2_model: Path) -> None:
    resolver = SuperResolver(x2_model, backend="tensorrt")
    for side in (20, 256, 257, 100):
        image = np.zeros((side, 40, 3), np.uint8)
        assert resolver(image).shape == (2 * side, 80, 3)
    assert [request.profile.maximum for request in built] == [(1, 256, 256), (1, 512, 256)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-3], "damaged"),
        (lambda content: content.replace(b'"gpu": "Fake 3000"', b'"gpu": "Fake 2000"'), "built for something else"),
        (lambda content: b"IGNN engine 1\n" + b"[" * 100_000, "maximum recursion depth"),
        (lambda content: b"nonsense", "not an engine of this cache"),
        (lambda content: b"", "not an engine of this cache"),
    ],
)
def test_an_engine_that_is_not_usable_is_built_again(
    machine: Machine, built: list[BuildRequest], x2_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    damage, message: str,
) -> None:  # fmt: skip
    image = np.full((20, 20, 3), 9, np.uint8)
    SuperResolver(x2_model, backend="tensorrt")(image)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING, "ignn"):
        np.testing.assert_array_equal(SuperResolver(x2_model, backend="tensorrt")(image), repeated(image))
    assert f"is not usable ({message}" in caplog.text
    assert "building it again" in caplog.text
    assert len(built) == 2
    assert file.read_bytes() == whole


def test_an_engine_that_tensorrt_refuses_is_built_again(
    machine: Machine, built: list[BuildRequest], x2_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch
) -> None:
    foreign = engine("Fake 2000", Profile((1, 1, 1), (1, 1, 1), (1, 1, 1)))
    monkeypatch.setattr(EngineCache, "load", lambda self, key: foreign)
    with caplog.at_level(logging.WARNING, "ignn"):
        SuperResolver(x2_model, backend="tensorrt")(np.zeros((9, 9, 3), np.uint8))
    assert "generated on an incompatible device" in caplog.text
    assert "Building it again." in caplog.text
    assert len(built) == 1


def test_every_part_of_the_key_counts() -> None:
    key = EngineKey("m" * 64, "p" * 64, "tensorrt 11.1", "GPU", "8.6", "a profile")
    names = {key.file_name}
    for field in key.__dataclass_fields__:
        names.add(EngineKey(**{**key.__dict__, field: "x" * 64}).file_name)
    assert len(names) == 7


def test_a_cache_that_cannot_be_written(
    machine: Machine, built: list[BuildRequest], x2_model: Path, tmp_path: Path, monkeypatch, caplog
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IGNN_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "ignn"):
        SuperResolver(x2_model, backend="tensorrt")(np.zeros((9, 9, 3), np.uint8))
    assert "the engine cannot be kept" in caplog.text


def backend(model: Path, given: bytes) -> TrtBackend:
    return TrtBackend(model.read_bytes(), source="m.onnx", flavor="tensorrt", engine=given)


def test_a_given_engine_of_another_gpu(machine: Machine, x2_model: Path) -> None:
    given = engine("Fake 2000", Profile((1, 1, 1), (1, 64, 64), (1, 64, 64)))
    with pytest.raises(EngineError, match=r"of another GPU or version.*incompatible device.*ignn build m.onnx"):
        backend(x2_model, given)
    with pytest.raises(EngineError, match="it is damaged, or"):
        backend(x2_model, b"nonsense")


@pytest.mark.parametrize(
    ("lies", "message"),
    [
        ({"scale": 3}, r"gives shape \(1, 3, 60, 60\) for .*\(1, 3, 40, 40\) was expected of scale 2.*--scale"),
        ({"tensors": ("lr", "sr", "third")}, "one image in and one out"),
        ({"inputs": ("lr", "sr")}, "one image in and one out"),
        ({"type": "half"}, r"tensors of half, half.*float32 \(N, 3, H, W\).*ignn build m.onnx"),
        ({"rank": 3}, r"inputs from \(1, 3, 1\)"),
    ],
)
def test_a_given_engine_of_another_network(machine: Machine, x2_model: Path, lies: dict, message: str) -> None:
    """An engine of another scale would write past its output; it must not come to that."""
    given = make_engine(machine.gpu, ((1, 1, 1), (1, 64, 64), (1, 64, 64)), **lies)
    with pytest.raises(EngineError, match=message):
        backend(x2_model, given).run(np.ones((1, 3, 20, 20), np.float32))
    assert "run" not in machine.events
    assert not machine.contexts.stack


def test_a_given_engine_too_small_for_a_tile(machine: Machine, x2_model: Path) -> None:
    runner = backend(x2_model, engine(machine.gpu, Profile((1, 8, 8), (1, 64, 64), (1, 64, 64))))
    lr = np.ones((1, 3, 64, 60), np.float32)
    assert runner.run(lr).shape == (1, 3, 128, 120)
    with pytest.raises(EngineError, match=r"maximum 1x64x64; 1x65x60 does not fit.*--tile.*--max 1x65x60"):
        runner.run(np.ones((1, 3, 65, 60), np.float32))
    assert not machine.contexts.stack
    assert runner.run(lr).shape == (1, 3, 128, 120)


def test_out_of_memory_goes_on_with_smaller_tiles(
    machine: Machine, built: list[BuildRequest], x2_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    machine.memory = 1_000_000  # of an image of 150 x 150: 1.35 MB
    with caplog.at_level(logging.WARNING, "ignn"):
        resolver = SuperResolver(x2_model, backend="tensorrt", tile=None)
        np.testing.assert_array_equal(resolver(image), repeated(image))
    assert "out of memory with a tile of 150: going on with 75" in caplog.text
    assert not machine.contexts.stack


def test_out_of_memory_with_the_smallest_tile(machine: Machine, built: list[BuildRequest], x2_model: Path) -> None:
    machine.memory = 1000
    for tile, message in ((None, r"down to 32\) needs less"), ("auto", "for the smallest tile")):
        with pytest.raises(DeviceMemoryError, match=message):
            SuperResolver(x2_model, backend="tensorrt", tile=tile)(np.zeros((90, 90, 3), np.uint8))


def test_no_device(machine: Machine, x2_model: Path) -> None:
    for count, message in ((0, "There is no CUDA device 0: 0 found"), (-1, "CUDA found no device .cuInit failed")):
        machine.count = count
        with pytest.raises(BackendUnavailableError, match=message):
            SuperResolver(x2_model, backend="tensorrt")


def test_what_is_not_installed(machine: Machine, x2_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pycuda.driver", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailableError, match=r"Neither pycuda .*nor cuda-bindings .*pip install 'cuda-bind"):
        SuperResolver(x2_model, backend="tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="pip install 'tensorrt"):
        SuperResolver(x2_model, backend="tensorrt")


def with_graph(model: bytes) -> bytes:
    """One more node, of our domain, in a second graph field: protocol buffers merge them."""
    node = b"\x22\x0bWindowedKnn\x3a\x04ignn"
    return model + b"\x3a" + bytes([len(node) + 2]) + b"\x0a" + bytes([len(node)]) + node


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (None, "There is no plugin library"),
        ("bad.so", "cannot load the plugin library .*bad.so: damaged, or built for another major version"),
    ],
)
def test_the_plugin_library(
    machine: Machine, built, x2_model: Path, tmp_path: Path, monkeypatch, library: str | None, message: str
) -> None:
    model = tmp_path / "graph.onnx"
    model.write_bytes(with_graph(x2_model.read_bytes()))
    monkeypatch.setenv("IGNN_PLUGIN", str(tmp_path / (library or "none.so")))
    if library:
        (tmp_path / library).write_bytes(b"")
    with pytest.raises(BackendUnavailableError, match=message) as raised:
        SuperResolver(model, backend="tensorrt")
    assert ADVICE in str(raised.value)


def test_the_plugin_is_built_in(machine: Machine, built, x2_model: Path, tmp_path: Path, monkeypatch) -> None:
    model, library = tmp_path / "graph.onnx", tmp_path / "good.so"
    model.write_bytes(with_graph(x2_model.read_bytes()))
    image = np.zeros((20, 20, 3), np.uint8)
    for content in (b"one version", b"another", b"another"):
        library.write_bytes(content)
        SuperResolver(model, backend="tensorrt")(image)
    assert [request.plugin for request in built] == [library, library]


def test_arguments_of_onnx_runtime(machine: Machine, model_file: ModelFactory) -> None:
    with pytest.raises(UsageError, match="leave them out for backend 'tensorrt'"):
        SuperResolver(model_file(2), backend="tensorrt", providers=["cpu"])


def test_a_stream_overlaps_as_a_call_does(
    machine: Machine, built: list[BuildRequest], x2_model: Path, tmp_path
) -> None:
    pytest.importorskip("pyvips", reason="needs the extra: pip install ignn[stream]")
    from runtime.commands.stream import upscale_stream
    from runtime.pictures.read import read_still

    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    resolver = SuperResolver(x2_model, backend="tensorrt", tile=48)
    upscale_stream(resolver, tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(read_still(tmp_path / "out.png").color, repeated(image))
    assert machine.most_begun == 2  # of the tiles that have neighbors on both sides
    assert machine.up == sum(3 * tile.crop_pixels for tile in resolver.network.plan(150, 170))  # each once, as bytes


def engine_file(
    folder: Path, model: Path, profile: Profile, *, gpu: str = "Fake 3000", flavor: str = "tensorrt", name: str = "m"
) -> Path:
    """Write an engine with the JSON that `ignn build` writes beside it."""
    path, onnx = folder / f"{name}.engine", model.read_bytes()
    path.write_bytes(engine(gpu, profile))
    network = read_facts(onnx, source="m.onnx")
    engine_sha256, model_sha256 = (hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), onnx))
    write_engine_facts(
        path,
        EngineFacts(
            engine_sha256, model_sha256, "m.onnx", flavor, "11.1.0", "8.6", network.properties, network.operator_calls
        ),
    )
    return path


UP_TO_128 = Profile((1, 1, 1), (1, 128, 128), (1, 128, 128))


@pytest.mark.parametrize("how", ["path", "engine", "model and engine"])
def test_an_engine_of_ignn_build(machine: Machine, x2_model: Path, tmp_path: Path, how: str) -> None:
    path = engine_file(tmp_path, x2_model, UP_TO_128)
    arguments = {
        "path": ((path,), {}),
        "engine": ((), {"engine": path}),
        "model and engine": ((x2_model,), {"engine": path}),
    }
    positional, named = arguments[how]
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)  # more than the engine takes: tiles
    resolver = SuperResolver(*positional, **named)
    np.testing.assert_array_equal(resolver(image), repeated(image))
    assert resolver.description == (
        "TensorRT 11.1.0 (Fake 3000), engine: fp32, no plugin, minimum 1x1x1, optimum 1x128x128, maximum 1x128x128"
    )
    assert resolver.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


def test_upscale_by_an_engine(machine: Machine, x2_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    from runtime.cli import main

    path = engine_file(tmp_path, x2_model, UP_TO_128)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "in.png")
    output = tmp_path / "out.png"
    assert main(["upscale", str(tmp_path / "in.png"), "-o", str(output), "--engine", str(path), "--device", "0"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(output)), repeated(image))


def test_the_device_is_the_one_that_was_named(machine: Machine, x2_model: Path, tmp_path: Path) -> None:
    path = engine_file(tmp_path, x2_model, UP_TO_128)
    with pytest.raises(BackendUnavailableError, match="There is no CUDA device 1: 1 found"):
        SuperResolver(path, device=1)
    machine.count = 2
    SuperResolver(path, device=1)
    with pytest.raises(UsageError, match="Invalid device"):
        SuperResolver(path, device=-1)
    with pytest.raises(UsageError, match="Say so: --provider cuda --device 1, in Python"):
        SuperResolver(x2_model, device=1)


def test_an_engine_of_trtexec_needs_its_model(machine: Machine, x2_model: Path, tmp_path: Path) -> None:
    path = engine_file(tmp_path, x2_model, UP_TO_128)
    facts_path(path).unlink()
    with pytest.raises(EngineError, match=r"There is no m\.engine\.json beside .*--model M\.onnx"):
        SuperResolver(path)
    image = np.zeros((20, 20, 3), np.uint8)
    np.testing.assert_array_equal(SuperResolver(x2_model, engine=path)(image), repeated(image))


def test_engines_that_cannot_run_here(machine: Machine, x2_model: Path, tmp_path: Path) -> None:
    foreign = engine_file(tmp_path, x2_model, UP_TO_128, gpu="Fake 2000", name="foreign")
    with pytest.raises(
        EngineError,
        match=r"on Fake 3000 \(compute capability 8\.6\): .*of another GPU or version.*it was built from m\.onnx by "
        r"tensorrt 11\.1\.0 for compute capability 8\.6",
    ):
        SuperResolver(foreign)
    path = engine_file(tmp_path, x2_model, UP_TO_128)
    with pytest.raises(EngineError, match=r"backend 'tensorrt-rtx' cannot run it\. Leave out the backend"):
        SuperResolver(path, backend="tensorrt-rtx")
    other = tmp_path / "other.onnx"
    other.write_bytes(with_graph(x2_model.read_bytes()))
    with pytest.raises(EngineError, match=r"was built from m\.onnx .*which is not .*other\.onnx.*ignn build"):
        SuperResolver(other, engine=path)
    with pytest.raises(EngineError, match=r"There is no engine none\.engine that can be read"):
        SuperResolver("none.engine")
    with pytest.raises(UsageError, match="leave them out for an engine"):
        SuperResolver(path, threads=2)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EngineError, match="the checksum differs"):
        SuperResolver(path)
    facts_path(path).write_text("{}")
    with pytest.raises(EngineError, match=r"m\.engine\.json is damaged"):
        SuperResolver(path)


def test_a_profile_without_room_for_the_context(machine: Machine, x2_model: Path, tmp_path: Path) -> None:
    path = engine_file(tmp_path, x2_model, Profile((1, 1, 1), (1, 8, 8), (1, 8, 8)))
    with pytest.raises(EngineError, match=r"The engine takes .*maximum 1x8x8; .*does not fit.*--max"):
        SuperResolver(path)(np.zeros((40, 40, 3), np.uint8))

"""The plugins in TensorRT-RTX's real registry, parser and builder. None of it needs a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from toolchain import Build, cuda_include, tool

onnx = pytest.importorskip("onnx")
helper, TensorProto = onnx.helper, onnx.TensorProto

KNN = {"k": 5, "window": 30, "scale": 2}
GATHER = {"scale": 2, "eps": 1e-5}


def graph_model(
    element: int = TensorProto.FLOAT,
    *,
    knn: dict[str, Any] | None = None,
    statistics: dict[str, Any] | None = None,
    gather: dict[str, Any] | None = None,
    gather_inputs: tuple[str, ...] = ("features", "mean", "std", "first"),
    shapes: dict[str, list[int | str]] | None = None,
    elements: dict[str, int] | None = None,
) -> bytes:
    """All operators in a row, each with a function of its name, as the exporter writes them.

    The functions only stand in: a model that TensorRT inlines instead of taking the plugin has no PLUGIN_V3 layer.
    """
    plugin = {"plugin_namespace": "ignn", "plugin_version": "1"}
    inputs: dict[str, list[int | str]] = {
        "query": ["N", 64, "H", "W"],
        "key": ["N", 64, "h", "w"],
        "features": ["N", 32, "H", "W"],
    } | (shapes or {})
    nodes = [
        helper.make_node(
            "WindowedKnn", ["query", "key"], ["index", "edge"], "knn", domain="ignn", **(knn or KNN), **plugin
        ),
        helper.make_node("Gather", ["index", "zero"], ["first"], axis=3),
        helper.make_node(
            "KeyStatistics",
            ["features"],
            ["mean", "std"],
            "statistics",
            domain="ignn",
            **(statistics or GATHER),
            **plugin,
        ),
        helper.make_node(
            "AdaPNGather", gather_inputs, ["folded"], "gather", domain="ignn", **(gather or GATHER), **plugin
        ),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ignn", 1)]
    functions = [
        helper.make_function(
            "ignn",
            "WindowedKnn",
            ["knn_query", "knn_key"],
            ["knn_index", "knn_edge"],
            [
                helper.make_node("Identity", ["knn_query"], ["knn_edge"]),
                helper.make_node("Shape", ["knn_key"], ["knn_index"]),
            ],
            opsets[:1],
            ["k", "window", "scale"],
        ),
        helper.make_function(
            "ignn",
            "KeyStatistics",
            ["statistics_features"],
            ["statistics_mean", "statistics_std"],
            [
                helper.make_node("Identity", ["statistics_features"], ["statistics_mean"]),
                helper.make_node("Identity", ["statistics_features"], ["statistics_std"]),
            ],
            opsets[:1],
            ["scale", "eps"],
        ),
        helper.make_function(
            "ignn",
            "AdaPNGather",
            ["gather_features", "gather_mean", "gather_std", "gather_index"],
            ["gather_folded"],
            [helper.make_node("Identity", ["gather_features"], ["gather_folded"])],
            opsets[:1],
            ["scale", "eps"],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, (elements or {}).get(n, element), s) for n, s in inputs.items()],
        [
            helper.make_tensor_value_info("folded", element, ["N", 32, "H2", "W2"]),
            helper.make_tensor_value_info("edge", element, ["N", 5, 64, "m1", "m2"]),
        ],
        [helper.make_tensor("zero", TensorProto.INT64, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    return model.SerializeToString()


class TensorRt:
    """A builder with the plugins loaded, and all that TensorRT logged."""

    def __init__(self, trt: ModuleType, library: Path) -> None:
        self.trt = trt
        self.library = library
        self.messages: list[str] = []
        messages = self.messages

        class Logger(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: object, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    messages.append(message)

        self.logger = Logger()
        self.builder = trt.Builder(self.logger)
        self.registry = trt.get_plugin_registry()
        self.handle = self.registry.load_library(str(library))

    def parse(self, model: bytes) -> tuple[Any, bool]:
        self.messages.clear()
        network = self.builder.create_network(0)
        self.parser = self.trt.OnnxParser(network, self.logger)  # which must outlive its network
        return network, self.parser.parse(model)

    def build(
        self, network: Any, *, serialize_plugin: bool = False, smallest: int = 16, batch: int = 2, side: int = 200
    ) -> bytes | None:
        """Return the engine of a graph_model() for compute capability 8.6."""
        config = self.builder.create_builder_config()
        profile = self.builder.create_optimization_profile()
        for name, channels, scale in (("query", 64, 1), ("key", 64, 2), ("features", 32, 1)):
            sizes = [(1, smallest, smallest), (1, 65, 80), (batch, 300, side)]
            profile.set_shape(name, *[(n, channels, h // scale, w // scale) for n, h, w in sizes])
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = 1
        config.set_compute_capability(self.trt.ComputeCapability.SM86, 0)
        if serialize_plugin:
            config.plugins_to_serialize = [str(self.library)]
        engine = self.builder.build_serialized_network(network, config)
        return None if engine is None else bytes(engine)


@pytest.fixture(scope="module")
def tensorrt(trt: ModuleType, build: Build) -> Iterator[TensorRt]:
    loaded = TensorRt(trt, build.library("ignn_plugin"))
    yield loaded
    loaded.registry.deregister_library(loaded.handle)


def plugin_layers(tensorrt: TensorRt, network: Any) -> list[str]:
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return [layer.name for layer in layers if layer.type == tensorrt.trt.LayerType.PLUGIN_V3]


def test_creators_and_their_fields(tensorrt: TensorRt) -> None:
    creators = {c.name: c for c in tensorrt.registry.all_creators if getattr(c, "plugin_namespace", "") == "ignn"}
    types = tensorrt.trt.PluginFieldType
    assert {name: [(f.name, f.type) for f in c.field_names] for name, c in creators.items()} == {
        "WindowedKnn": [("k", types.INT32), ("window", types.INT32), ("scale", types.INT32)],
        "KeyStatistics": [("scale", types.INT32), ("eps", types.FLOAT32)],
        "AdaPNGather": [("scale", types.INT32), ("eps", types.FLOAT32)],
    }
    assert {c.plugin_version for c in creators.values()} == {"1"}


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_model_is_parsed_into_plugins_and_built(tensorrt: TensorRt, element: int, static: bool) -> None:
    shapes: dict[str, list[int | str]] = {}
    if static:
        shapes = {"query": [1, 64, 65, 80], "key": [1, 64, 32, 40], "features": [1, 32, 65, 80]}
    network, parsed = tensorrt.parse(graph_model(element, shapes=shapes))
    assert parsed, tensorrt.messages
    assert plugin_layers(tensorrt, network) == ["knn", "statistics", "gather"]
    half = element == TensorProto.FLOAT16
    expected = tensorrt.trt.DataType.HALF if half else tensorrt.trt.DataType.FLOAT
    outputs = {network.get_output(i).name: network.get_output(i) for i in range(network.num_outputs)}
    assert {o.dtype for o in outputs.values()} == {expected}
    if static:
        assert tuple(outputs["folded"].shape) == (1, 32, 130, 160)
        assert tuple(outputs["edge"].shape) == (1, 5, 64, 32, 40)
    if not static:
        engine = tensorrt.build(network)
        assert engine is not None, tensorrt.messages
        assert b"WindowedKnn" in engine
        assert b"KeyStatistics" in engine
        assert b"AdaPNGather" in engine


def test_the_engine_holds_the_library_when_asked(tensorrt: TensorRt) -> None:
    library = tensorrt.library.read_bytes()
    for asked in (False, True):
        network, _ = tensorrt.parse(graph_model())
        engine = tensorrt.build(network, serialize_plugin=asked)
        assert engine is not None, tensorrt.messages
        assert (library in engine) == asked


def test_a_profile_that_begins_too_small_is_not_built(tensorrt: TensorRt) -> None:
    network, _ = tensorrt.parse(graph_model())
    assert tensorrt.build(network, smallest=8) is None
    message = "ignn::WindowedKnn: k must not exceed the key patches in the window (query 1 x 64 x 8 x 8, k 5"
    assert any(line.startswith(message) for line in tensorrt.messages), tensorrt.messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 65536}, ": the batch must be 1 to 65535 ("),
        ({"side": 1 << 23}, " must have at most 2147483520 pixels ("),
    ],
)
def test_a_profile_that_ends_too_large_is_not_built(tensorrt: TensorRt, change: dict[str, int], message: str) -> None:
    network, _ = tensorrt.parse(graph_model())
    assert tensorrt.build(network, **change) is None
    # Of the operator that TensorRT asks first.
    assert any(line.startswith("ignn::") and message in line for line in tensorrt.messages), tensorrt.messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knn": KNN | {"k": 50}}, "ignn::WindowedKnn: attribute 'k' is 50; it must be 1 to 16"),
        ({"knn": KNN | {"window": 0}}, "ignn::WindowedKnn: attribute 'window' is 0; it must be at least 1"),
        ({"knn": KNN | {"scale": 4}}, "ignn::WindowedKnn: attribute 'scale' is 4; it must be 2 or 3"),
        ({"knn": KNN | {"scale": 2.0}}, "ignn::WindowedKnn: attribute 'scale' must be an integer"),
        ({"knn": {"k": 5, "scale": 2}}, "ignn::WindowedKnn: attribute 'window' is missing"),
        ({"gather": GATHER | {"scale": 1}}, "ignn::AdaPNGather: attribute 'scale' is 1; it must be 2 or 3"),
        ({"gather": GATHER | {"eps": -1.0}}, "ignn::AdaPNGather: attribute 'eps' is -1; it must be positive"),
        ({"gather": GATHER | {"eps": 1}}, "ignn::AdaPNGather: attribute 'eps' must be a float32"),
        ({"gather": {"scale": 2}}, "ignn::AdaPNGather: attribute 'eps' is missing"),
        ({"statistics": GATHER | {"scale": 4}}, "ignn::KeyStatistics: attribute 'scale' is 4; it must be 2 or 3"),
        # A file of before there was KeyStatistics.
        ({"gather_inputs": ("features", "first")}, "ignn::AdaPNGather: 2 inputs; it has 4: the file is of another"),
        (
            {"gather_inputs": ("features", "mean", "first", "first")},
            "ignn::AdaPNGather: input 'key_std' is int32; it must be float32",
        ),
        (
            {"shapes": {"features": [1, 32, 40, 40]}, "statistics": GATHER | {"scale": 3}},
            "ignn::AdaPNGather: the height of the keys' statistics is 6; it must be 10",
        ),
        (
            {"elements": {"key": TensorProto.FLOAT16}},
            "ignn::WindowedKnn: input 'key' is float16; it must be float32 as 'query' is",
        ),
        (
            {"elements": {"query": TensorProto.INT32, "key": TensorProto.INT32}},
            "ignn::WindowedKnn: input 'query' is int32; it must be float32 or float16",
        ),
        (
            {"elements": {"features": TensorProto.BFLOAT16}},
            "ignn::KeyStatistics: input 'features' is bfloat16; it must be float32 or float16",
        ),
        ({"shapes": {"query": [64, "H", "W"]}}, "ignn::WindowedKnn: input 'query' has 3 dimensions; it must have 4"),
        (
            {"shapes": {"features": [1, 32, "H", "W", 1]}},
            "ignn::KeyStatistics: input 'features' has 5 dimensions; it must have 4",
        ),
        (
            {"shapes": {"query": ["N", 60, "H", "W"], "key": ["N", 60, "h", "w"]}},
            "ignn::WindowedKnn: input 'query' has 60 channels; it must have a multiple of 8",
        ),
        (
            {"shapes": {"key": ["N", 72, "h", "w"]}},
            "ignn::WindowedKnn: the channel count of 'key' is 72; it must be 64",
        ),
        (
            {"shapes": {"query": [1, 64, 41, 40], "key": [1, 64, 21, 20]}},
            "ignn::WindowedKnn: the height of 'key' is 21; it must be 20",
        ),
        (
            {"shapes": {"query": [1, 64, 40, 40], "features": [1, 32, 44, 40]}},
            "ignn::AdaPNGather: the height of 'index' is 20; it must be 22",
        ),
    ],
)
def test_the_parser_refuses(tensorrt: TensorRt, change: dict[str, Any], message: str) -> None:
    _, parsed = tensorrt.parse(graph_model(**change))
    assert not parsed
    assert any(line.startswith(message) for line in tensorrt.messages), tensorrt.messages


@pytest.fixture(scope="module")
def round_trip(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of round_trip.cpp."""
    program = tmp_path_factory.mktemp("round_trip") / "round_trip"
    include = ["-isystem", build.tensorrt_headers, "-isystem", cuda_include()]
    source = Path(__file__).parent / "round_trip.cpp"
    subprocess.run([tool("g++"), "-std=c++17", *include, source, "-ldl", "-o", program], check=True)
    return program


KEPT = [
    "ignn WindowedKnn 1 k=7 window=21 scale=3 own=1 same=1",
    "timed as kernels 4 k=7 window=21 scale=3",
    "attached k=7 window=21 scale=3",
    "ignn KeyStatistics 1 scale=3 eps=0.25 own=1 same=1",
    "timed as kernels 4 scale=3",
    "attached scale=3 eps=0.25",
    "ignn AdaPNGather 1 scale=3 eps=0.25 own=1 same=1",
    "timed as kernels 4 scale=3",
    "attached scale=3 eps=0.25",
]
"""What plugins print that survive a clone, and serialising and making them again."""


def test_clones_and_serialised_plugins_keep_their_attributes(build: Build, round_trip: Path) -> None:
    command = [round_trip, build.library("ignn_plugin")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line for line in output.splitlines() if not line.startswith("log ")] == KEPT
    logged = [line for line in output.splitlines() if line.startswith("log ")]
    assert len(logged) == 3  # of the attributes that were left out
    assert all("is missing" in line for line in logged)


def lean_library() -> Path:
    """TensorRT's own runtime for version-compatible engines: its registry works without a GPU."""
    lean = importlib.util.find_spec("tensorrt_lean_libs")
    if lean is None or not lean.submodule_search_locations:
        pytest.skip("TensorRT's lean runtime is not installed: pip install tensorrt_lean_cu13_libs")
    (library,) = Path(lean.submodule_search_locations[0]).glob("libnvinfer_lean.so.*")
    return library


def test_the_registry_of_tensorrt_itself(build: Build, round_trip: Path) -> None:
    command = [round_trip, build.library("ignn_plugin"), lean_library()]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    lines = completed.stdout.splitlines()
    assert lines == ["loaded 1, 3 creators more", *KEPT, "after deregisterLibrary: 0 creators"]
    assert completed.stderr.count("is missing") == 3


def test_the_self_registering_library_survives_load_library(build: Build, round_trip: Path) -> None:
    """loadLibrary refuses creators that are there already and unmaps the library; the registry still points into it."""
    library = build.library("ignn_plugin_static_init")
    completed = subprocess.run(
        [round_trip, library, lean_library(), library], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines() == ["init: 3 creators", "loadLibrary refused it", *KEPT]


def test_the_self_registering_library(trt: ModuleType, build: Build) -> None:
    """In a process of its own: a registry keeps creators."""
    library = build.library("ignn_plugin_static_init")
    maps = Path("/proc/self/maps").read_text().split()
    loaded = sorted({entry for entry in maps if "/libtensorrt_" in entry and ".so." in entry}, reverse=True)
    script = f"""
import ctypes, tensorrt_rtx_bindings as trt
ctypes.CDLL({str(library)!r})
print(sorted(c.name for c in trt.get_plugin_registry().all_creators if getattr(c, "plugin_namespace", "") == "ignn"))
"""
    with_tensorrt = [sys.executable, "-c", f"import ctypes; [ctypes.CDLL(path) for path in {loaded}]; {script}"]
    completed = subprocess.run(with_tensorrt, capture_output=True, text=True, check=False)
    assert "['AdaPNGather', 'KeyStatistics', 'WindowedKnn']" in completed.stdout, completed.stderr

    loaded_twice = script.replace("print(", f"trt.get_plugin_registry().load_library({str(library)!r})\nprint(")
    with_tensorrt[-1] = with_tensorrt[-1].replace(script, loaded_twice)
    completed = subprocess.run(with_tensorrt, capture_output=True, text=True, check=False)
    assert "['AdaPNGather', 'KeyStatistics', 'WindowedKnn']" in completed.stdout, completed.stderr

    alone = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r})"]
    completed = subprocess.run(alone, capture_output=True, text=True, check=True)
    assert "load TensorRT before this library" in completed.stderr

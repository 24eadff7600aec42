"""Reading the engine inspector: its JSON as TensorRT's documentation shows it, and its calls with TensorRT faked."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from export.to_engine import describe
from runtime.backends.engine_build import BuildReport, BuildRequest, Profile
from runtime.backends.engine_child import RefusalError, _check_precision
from runtime.backends.engine_layers import convolution_types, engine_convolutions


def layer(kind: str, weights: str | None = None, output: str = "N/A due to dynamic shapes") -> dict:
    made = {"Name": kind, "LayerType": kind, "Outputs": [{"Name": "x", "Format/Datatype": output}]}
    return (
        made if weights is None else made | {"ParameterType": "Convolution", "Weights": {"Type": weights, "Count": 9}}
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer("CaskConvolution", "Half"), layer("CaskConvolution", "Float")], {"HALF": 1, "FLOAT": 1}),
        ([layer("CaskConvolution", output="Channel major FP16 format where channel % 8 == 0")], {"HALF": 1}),
        ([layer("CaskConvolution", output="Row major linear FP32")], {"FLOAT": 1}),
        ([layer("CaskConvolution", output="BFloat16")], {"BF16": 1}),
        ([layer("CaskConvolution", "Half"), layer("CaskConvolution")], {}),  # one is not told
        ([layer("Reformat", output="Half"), layer("PluginV3", output="Half"), layer("kgen", output="Half")], {}),
        (["conv0 + relu0"], {}),  # what less than detailed verbosity gives
    ],
)
def test_convolution_types(layers: list, expected: dict[str, int]) -> None:
    assert convolution_types(json.dumps({"Layers": layers, "Bindings": ["lr", "sr"]})) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"Format/Datatype": "Row major linear FP16 format (kLINEAR)"}, {"HALF": 1}),  # TensorRT 10
        ({"DataType": "Half", "Format": "Channel major format (kHWC8)"}, {"HALF": 1}),  # TensorRT 11
        ({"Datatype": "BFloat16", "Format": "Row major linear"}, {"BF16": 1}),
        ({"DataType": None, "Format": "Row major linear FP32 format (kLINEAR)"}, {"FLOAT": 1}),
        ({"Format": "Row major linear"}, {}),
    ],
)
def test_the_fields_of_each_tensorrt(output: dict, expected: dict[str, int]) -> None:
    convolution = {"Name": "c", "LayerType": "CaskConvolution", "Outputs": [{"Name": "x"} | output]}
    assert convolution_types(json.dumps({"Layers": [convolution]})) == expected


@pytest.mark.parametrize("information", ["", "{", "[]", "null", '{"Layers": []}'])
def test_no_information(information: str) -> None:
    assert convolution_types(information) == {}


class Engine:
    """An engine that tells types only with a context whose shapes are set."""

    shape: tuple[int, ...] | None = None
    inspector: SimpleNamespace

    def get_tensor_name(self, index: int) -> str:
        return "lr"

    def create_execution_context(self) -> SimpleNamespace:
        return SimpleNamespace(set_input_shape=lambda name, shape: setattr(self, "shape", shape))

    def create_engine_inspector(self) -> SimpleNamespace:
        def information(form: str) -> str:
            known = self.inspector.execution_context is not None and self.shape == (1, 3, 64, 80)
            assert form == "json"
            return json.dumps({"Layers": [layer("CaskConvolution", output="Half" if known else "N/A")]})

        self.inspector = SimpleNamespace(execution_context=None, get_engine_information=information)
        return self.inspector


def test_the_inspector_is_asked_with_shapes() -> None:
    def tensorrt(engine: Engine | None) -> SimpleNamespace:
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda content: engine)
        return SimpleNamespace(Runtime=lambda logger: runtime, LayerInformationFormat=SimpleNamespace(JSON="json"))

    assert engine_convolutions(tensorrt(Engine()), None, b"engine", (1, 64, 80)) == {"HALF": 1}
    assert engine_convolutions(tensorrt(None), None, b"engine", (1, 64, 80)) == {}


def test_fp16_that_became_fp32() -> None:
    with pytest.raises(RefusalError, match="none of the convolutions of the engine computes in it"):
        _check_precision({"FLOAT": 3}, {"precision": "fp16"}, "the engine")
    _check_precision({"FLOAT": 3, "HALF": 1}, {"precision": "fp16"}, "the engine")
    _check_precision({"FLOAT": 3}, {"precision": "fp32"}, "the engine")


@pytest.mark.parametrize(
    ("inspected", "source"),
    [
        (True, "by the engine's inspector"),
        (False, "in the network, whose types are binding; the engine's inspector does"),
    ],
)
def test_it_says_where_it_looked(inspected: bool, source: str) -> None:
    profile = Profile((1, 1, 1), (1, 64, 64), (1, 64, 64))
    report = BuildReport("11.1", 6, 6, {"HALF": 40, "FLOAT": 1}, inspected, True, False, 1000)
    line = describe(report, BuildRequest("tensorrt", profile, None))[-1]
    assert line.startswith(f"Convolutions: 1 in fp32, 40 in fp16 ({source}")

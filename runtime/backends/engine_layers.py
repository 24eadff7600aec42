"""Read from TensorRT's engine inspector which types the layers of a built engine compute in."""

from __future__ import annotations

import json
import re
from collections import Counter
from types import ModuleType
from typing import Any

from .engine_build import Size

UNKNOWN = "unknown"

_TYPES = {"HALF": r"half|fp16", "BF16": r"bfloat16|bf16", "FLOAT": r"float|fp32", "INT8": r"int8"}
"""TensorRT's names of types, and how the inspector writes them: `Half`, or `Row major FP16 format`."""

_TENSOR_FIELDS = ("DataType", "Datatype", "Format/Datatype", "Format/DataType", "Format")
"""Where the inspector writes a tensor's type: TensorRT 11 in a field of its own, TensorRT 10 with the format."""


def engine_convolutions(trt: ModuleType, logger: object, engine: bytes, optimum: Size) -> dict[str, int]:
    """Count the convolutions of an engine by the type they compute in, {"HALF": 40}; empty if the inspector keeps it.

    Args:
        trt: TensorRT's module.
        logger: its logger.
        engine: the engine, made for the GPU that is here, with detailed profiling verbosity.
        optimum: N, H, W: with shapes unknown the inspector keeps types to itself.
    """
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = True  # for a plugin library inside the engine
    loaded = runtime.deserialize_cuda_engine(engine)
    context = None if loaded is None else loaded.create_execution_context()
    if context is None:
        return {}
    n, height, width = optimum
    context.set_input_shape(loaded.get_tensor_name(0), (n, 3, height, width))
    inspector = loaded.create_engine_inspector()
    inspector.execution_context = context
    return convolution_types(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def convolution_types(information: str) -> dict[str, int]:
    """Count convolutions by type in the inspector's JSON; empty where it leaves out the type of one."""
    try:
        layers = json.loads(information)["Layers"]
    except (ValueError, KeyError, TypeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        if isinstance(layer, dict) and "conv" in f"{layer.get('LayerType')} {layer.get('ParameterType')}".lower():
            counts[_type_of(layer)] += 1
    return {} if counts[UNKNOWN] else dict(counts)


def _type_of(layer: dict[str, Any]) -> str:
    """Return the type of a layer's weights, else of its output: one of `_TYPES`, or `UNKNOWN`."""
    outputs = [tensor.get(field) or "" for tensor in layer.get("Outputs", []) for field in _TENSOR_FIELDS]
    for text in ((layer.get("Weights") or {}).get("Type", ""), *outputs):
        for name, pattern in _TYPES.items():
            if re.search(rf"\b({pattern})\b", text, re.IGNORECASE):
                return name
    return UNKNOWN

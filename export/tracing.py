"""PyTorch modules to ONNX graphs, with the three graph operators as nodes of our domain."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from onnxscript import values
from torch import Tensor, nn

from export.functions import DOMAIN, DOMAIN_VERSION, OPSET

_NEWEST_IR_VERSION = 10
"""Format of the file itself; 10 is read by ONNX Runtime 1.20 and TensorRT 10."""

_REAL = [("T", ["tensor(float)", "tensor(float16)"], "a map")]
_PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": "1"}
"""On the node itself: by these TensorRT takes the plugin instead of the function."""


def _operator(name: str, inputs: dict[str, str], outputs: dict[str, str], attributes: dict[str, str]) -> values.Op:
    def parameters(items: dict[str, str]) -> list[OpSchema.FormalParameter]:
        return [OpSchema.FormalParameter(key, kind) for key, kind in items.items()]

    schema = OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=parameters(inputs),
        outputs=parameters(outputs),
        type_constraints=_REAL,
        attributes=[
            OpSchema.Attribute(key, getattr(OpSchema.AttrType, kind))
            for key, kind in {**attributes, **dict.fromkeys(_PLUGIN, "STRING")}.items()
        ],
    )
    return values.Op(values.Opset(DOMAIN, DOMAIN_VERSION), name, schema)


_WINDOWED_KNN = _operator(
    "WindowedKnn",
    {"query": "T", "key": "T"},
    {"index": "tensor(int32)", "edge": "T"},
    {"k": "INT", "window": "INT", "scale": "INT"},
)
_KEY_STATISTICS = _operator(
    "KeyStatistics",
    {"features": "T"},
    {"key_mean": "tensor(float)", "key_std": "tensor(float)"},
    {"scale": "INT", "eps": "FLOAT"},
)
_ADAPN_GATHER = _operator(
    "AdaPNGather",
    {"features": "T", "key_mean": "tensor(float)", "key_std": "tensor(float)", "index": "tensor(int32)"},
    {"folded": "T"},
    {"scale": "INT", "eps": "FLOAT"},
)

_Symbolic = onnxscript.ir.Value


def _windowed_knn(query: _Symbolic, key: _Symbolic, k: int, window: int, scale: int) -> tuple[_Symbolic, ...]:
    return _WINDOWED_KNN(query, key, k=k, window=window, scale=scale, **_PLUGIN)


def _key_statistics(features: _Symbolic, scale: int, eps: float) -> tuple[_Symbolic, ...]:
    return _KEY_STATISTICS(features, scale=scale, eps=eps, **_PLUGIN)


def _adapn_gather(
    features: _Symbolic, key_mean: _Symbolic, key_std: _Symbolic, index: _Symbolic, scale: int, eps: float
) -> _Symbolic:
    return _ADAPN_GATHER(features, key_mean, key_std, index, scale=scale, eps=eps, **_PLUGIN)


def _remainder(x: _Symbolic, divisor: _Symbolic) -> _Symbolic:
    # The exporter's own translation takes constant divisors only; both operators follow the divisor's sign.
    return onnxscript.opset20.Mod(x, divisor)  # type: ignore[type-var]


_TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.ignn.windowed_knn.default: _windowed_knn,
    torch.ops.ignn.key_statistics.default: _key_statistics,
    torch.ops.ignn.adapn_gather.default: _adapn_gather,
    torch.ops.aten.remainder.Scalar: _remainder,
}


def traced(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    dynamic: tuple[dict[int, Any], ...],
    inputs: list[str],
    outputs: list[str],
) -> onnx.ModelProto:
    """Translate a module by tracing it.

    Args:
        module: what to translate.
        examples: one for each input.
        dynamic: the free dimensions of each input.
        inputs, outputs: names.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", FutureWarning)
            program = torch.onnx.export(
                module.eval(),
                examples,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=dynamic,
                custom_translation_table=_TRANSLATIONS,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    model.ir_version = min(model.ir_version, _NEWEST_IR_VERSION)
    _forget_how_it_was_traced(model)
    return model


def _forget_how_it_was_traced(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (stack traces with paths of this machine, qualified names)."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    graph = model.graph
    for item in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]

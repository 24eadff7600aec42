"""Read what the runtime needs of an ONNX file, and take its stages out of it, without the `onnx` package.

An ONNX file is a protocol buffer: a sequence of (field number, wire type, value). The numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import EngineBuildError, ModelLoadError
from ..metadata import Key

PLUGIN_DOMAIN = "ignn"

_IR = 10
"""Version of the format of the stages' models: that of the files of `ignn export`."""

_IR_VERSION, _GRAPH, _OPSET_IMPORT, _METADATA, _FUNCTION = 1, 7, 8, 14, 25  # of ModelProto
_NODE, _GRAPH_NAME, _INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12  # of GraphProto
_TENSOR_NAME = 8  # of TensorProto
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OP_TYPE, _DOMAIN = 1, 2, 3, 4, 7  # of NodeProto
_FUNCTION_NAME, _FUNCTION_INPUT, _FUNCTION_OUTPUT, _FUNCTION_DOMAIN, _VALUE_INFO = 1, 4, 5, 10, 12  # of FunctionProto
_VALUE_NAME = 1  # of ValueInfoProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto


@dataclass(frozen=True)
class OnnxFacts:
    """What building an engine needs to know of an ONNX file.

    Attributes:
        properties: its metadata.
        operator_calls: calls of our operators, by name.
        has_loop: whether a standard Loop is among the graph's nodes.
    """

    properties: dict[str, str]
    operator_calls: dict[str, int]
    has_loop: bool = False

    @property
    def is_inlined(self) -> bool:
        """Whether it is a file of `ignn export --inline`: a graph's network with our operators' loops, not calls."""
        return self.properties.get(Key.WINDOW, "0") != "0" and not self.operator_calls and self.has_loop


def read_facts(model: bytes, *, source: str) -> OnnxFacts:
    """Read an ONNX file's metadata and count its calls of domain `ignn`.

    Raises:
        ModelLoadError: it is not an ONNX file.
    """
    properties: dict[str, str] = {}
    calls: Counter[str] = Counter()
    has_graph = has_loop = False
    try:
        for number, value in _fields(memoryview(model)):
            if number == _METADATA:
                entry = dict(_fields(value))
                properties[_text(entry[_KEY])] = _text(entry[_VALUE])
            elif number == _GRAPH:
                has_graph = True
                for inner, node in _fields(value):
                    if inner == _NODE:
                        facts = dict(_fields(node))
                        has_loop |= facts[_OP_TYPE] == b"Loop"
                        if _DOMAIN in facts and _text(facts[_DOMAIN]) == PLUGIN_DOMAIN:
                            calls[_text(facts[_OP_TYPE])] += 1
    except (IndexError, KeyError, ValueError) as error:
        raise ModelLoadError(
            f"{source} is not an ONNX file, or a damaged one. Export it with `ignn export`."
        ) from error
    if not has_graph:
        raise ModelLoadError(f"{source} is not an ONNX file: it has no graph. Export it with `ignn export`.")
    return OnnxFacts(properties, dict(calls), has_loop)


def refuse_inlined(facts: OnnxFacts, *, source: str) -> None:
    """Raise EngineBuildError for a file of `ignn export --inline`, in which TensorRT finds nothing for the plugin."""
    if facts.is_inlined:
        raise EngineBuildError(
            f"{source} was exported with --inline, for runtimes that take no functions: it has no graph operators that "
            "the plugin could run. TensorRT needs the default file: ignn export --checkpoint C --output M.onnx"
        )


def read_stages(model: bytes, domain: str) -> dict[str, bytes]:
    """Return a model of each function of a domain: one call, with those weights of the graph that it refers to.

    Args:
        model: content of an ONNX file that `read_facts` takes.
        domain: of the functions; their `value_info` says the types of their inputs and outputs.
    """
    functions, common = [], bytearray(_number(_IR_VERSION, _IR))
    weights: dict[bytes, memoryview] = {}
    for number, value in _fields(memoryview(model)):
        if number == _FUNCTION:
            functions.append(value)
        if number in (_OPSET_IMPORT, _FUNCTION):
            common += _field(number, value)
        elif number == _GRAPH:
            for inner, tensor in _fields(value):
                if inner == _INITIALIZER:
                    weights[bytes(dict(_fields(tensor))[_TENSOR_NAME])] = tensor
    models = {}
    for function in functions:
        facts = dict(_fields(function))
        if _text(facts.get(_FUNCTION_DOMAIN, memoryview(b""))) != domain:
            continue
        types = {bytes(dict(_fields(v))[_VALUE_NAME]): v for number, v in _fields(function) if number == _VALUE_INFO}
        inputs = [bytes(value) for number, value in _fields(function) if number == _FUNCTION_INPUT]
        outputs = [bytes(value) for number, value in _fields(function) if number == _FUNCTION_OUTPUT]
        call = b"".join(
            [_field(_NODE_INPUT, name) for name in inputs]
            + [_field(_NODE_OUTPUT, name) for name in outputs]
            + [_field(_NODE_NAME, facts[_FUNCTION_NAME]), _field(_OP_TYPE, facts[_FUNCTION_NAME])]
            + [_field(_DOMAIN, domain.encode())]
        )
        graph = b"".join(
            [_field(_NODE, call), _field(_GRAPH_NAME, facts[_FUNCTION_NAME])]
            + [_field(_INITIALIZER, weights[name]) for name in inputs if name not in types]
            + [_field(_GRAPH_INPUT, types[name]) for name in inputs if name in types]
            + [_field(_GRAPH_OUTPUT, types[name]) for name in outputs]
        )
        models[_text(facts[_FUNCTION_NAME])] = bytes(common) + _field(_GRAPH, graph)
    return models


def _field(number: int, value: bytes | memoryview) -> bytes:
    """Return a length-delimited field."""
    return _to_varint(number << 3 | 2) + _to_varint(len(value)) + bytes(value)


def _number(number: int, value: int) -> bytes:
    return _to_varint(number << 3) + _to_varint(value)


def _to_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the length-delimited fields of a message; skip the others."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(message, position)
            continue
        if kind == 2:
            length, position = _varint(message, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > len(message):
            raise ValueError("truncated")
        if kind == 2:
            yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")

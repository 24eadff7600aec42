"""Read the few facts of an ONNX file that building an engine needs, without the `onnx` package.

An ONNX file is a protocol buffer: a sequence of (field number, wire type, value). The numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ModelLoadError

PLUGIN_DOMAIN = "ignn"

_GRAPH, _METADATA = 7, 14  # of ModelProto
_NODE = 1  # of GraphProto
_OP_TYPE, _DOMAIN = 4, 7  # of NodeProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto


@dataclass(frozen=True)
class OnnxFacts:
    """What building an engine needs to know of an ONNX file.

    Attributes:
        properties: its metadata.
        operator_calls: calls of our operators, by name.
    """

    properties: dict[str, str]
    operator_calls: dict[str, int]


def read_facts(model: bytes, *, source: str) -> OnnxFacts:
    """Read an ONNX file's metadata and count its calls of domain `ignn`.

    Raises:
        ModelLoadError: it is not an ONNX file.
    """
    properties: dict[str, str] = {}
    calls: Counter[str] = Counter()
    has_graph = False
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
                        if _DOMAIN in facts and _text(facts[_DOMAIN]) == PLUGIN_DOMAIN:
                            calls[_text(facts[_OP_TYPE])] += 1
    except (IndexError, KeyError, ValueError) as error:
        raise ModelLoadError(
            f"{source} is not an ONNX file, or a damaged one. Export it with `ignn export`."
        ) from error
    if not has_graph:
        raise ModelLoadError(f"{source} is not an ONNX file: it has no graph. Export it with `ignn export`.")
    return OnnxFacts(properties, dict(calls))


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

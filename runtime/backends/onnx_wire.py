"""The format of ONNX files, read and written without the `onnx` package.

An ONNX file is a protocol buffer: a sequence of (field number, wire type, value). The numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum


class Model(IntEnum):
    """Fields of ModelProto."""

    IR_VERSION = 1
    GRAPH = 7
    OPSET_IMPORT = 8
    METADATA = 14
    FUNCTION = 25


class Graph(IntEnum):
    """Fields of GraphProto."""

    NODE = 1
    NAME = 2
    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12
    VALUE_INFO = 13
    SPARSE_INITIALIZER = 15


class Node(IntEnum):
    """Fields of NodeProto."""

    INPUT = 1
    OUTPUT = 2
    NAME = 3
    OP_TYPE = 4
    ATTRIBUTE = 5
    DOMAIN = 7
    OVERLOAD = 8


class Attribute(IntEnum):
    """Fields of AttributeProto."""

    NAME = 1
    GRAPH = 6
    GRAPHS = 11
    REFERENCE = 21


class Function(IntEnum):
    """Fields of FunctionProto."""

    NAME = 1
    INPUT = 4
    OUTPUT = 5
    NODE = 7
    OPSET_IMPORT = 9
    DOMAIN = 10
    DEFAULT = 11
    VALUE_INFO = 12
    OVERLOAD = 13


TENSOR_NAME, VALUE_INFO_NAME = 8, 1
ENTRY_KEY, ENTRY_VALUE = 1, 2  # of StringStringEntryProto
OPSET_DOMAIN = 1  # of OperatorSetIdProto


def field(number: int, value: bytes | memoryview) -> bytes:
    """Return a length-delimited field."""
    return _to_varint(number << 3 | 2) + _to_varint(len(value)) + bytes(value)


def number_field(number: int, value: int) -> bytes:
    """Return a field that holds a whole number from 0."""
    return _to_varint(number << 3) + _to_varint(value)


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the length-delimited fields of a message; skip the others."""
    for number, content, _ in all_fields(message):
        if content is not None:
            yield number, content


def all_fields(message: memoryview) -> Iterator[tuple[int, memoryview | None, memoryview]]:
    """Yield number, content (None of one that is not length-delimited) and bytes of each field of a message.

    Raises:
        IndexError, ValueError: it is no message, or is truncated.
    """
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        kind = tag & 7
        content = None
        if kind == 0:
            _, position = _varint(message, position)
        elif kind in (1, 2, 5):
            length = 8 if kind == 1 else 4
            if kind == 2:
                length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("truncated")
            if kind == 2:
                content = message[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, content, message[start:position]


def text(value: memoryview) -> str:
    """Return a string."""
    return bytes(value).decode("utf-8")


def _to_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


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

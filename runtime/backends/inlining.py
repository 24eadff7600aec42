"""Put the bodies of an ONNX file's functions in place of their calls, without the `onnx` package.

For runtimes that take no functions, such as OpenVINO. `ignn export --inline` does the same, by ONNX's own inliner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from ..errors import ModelLoadError
from .onnx_wire import (
    OPSET_DOMAIN,
    TENSOR_NAME,
    VALUE_INFO_NAME,
    Attribute,
    Function,
    Graph,
    Model,
    Node,
    all_fields,
    fields,
)
from .onnx_wire import field as to_field

MOST_CALLS = 10_000
"""Calls that one file may have: functions that call functions twice would double its size at every level."""

Name = tuple[bytes, bytes, bytes]
"""Domain, name and overload of a function."""

Rename = Callable[[bytes], bytes]


def inline(model: bytes, *, source: str) -> bytes:
    """Return a model's file without functions; one that has none, as it is.

    Args:
        model: content of an ONNX file.
        source: what messages call it.

    Raises:
        ModelLoadError: it is damaged, or its functions call one another in a circle or without end.
    """
    try:
        functions = [_read_function(value) for number, value in fields(memoryview(model)) if number == Model.FUNCTION]
        if not functions:
            return model
        inliner = _Inliner({function.name: function for function in functions})
        gone = {function.name[0] for function in functions}
        parts = []
        for number, value, raw in all_fields(memoryview(model)):
            if number == Model.FUNCTION:
                continue
            if number == Model.OPSET_IMPORT and value is not None and _get(value, OPSET_DOMAIN) in gone - {b""}:
                continue
            if number == Model.GRAPH and value is not None:
                parts.append(to_field(Model.GRAPH, inliner.graph(value, lambda name: name, {})))
            else:
                parts.append(bytes(raw))
        return b"".join(parts)
    except _EndlessError as error:
        raise ModelLoadError(f"{source}: {error}. Export it with `ignn export`.") from error
    except (IndexError, KeyError, ValueError) as error:
        raise ModelLoadError(
            f"{source} is not an ONNX file, or a damaged one. Export it with `ignn export`."
        ) from error


class _EndlessError(Exception):
    pass


@dataclass(frozen=True)
class _Function:
    name: Name
    inputs: list[bytes]
    outputs: list[bytes]
    defaults: dict[bytes, memoryview]
    nodes: list[memoryview]


def _read_function(message: memoryview) -> _Function:
    of: dict[int, list[memoryview]] = {}
    for number, value in fields(message):
        of.setdefault(number, []).append(value)
    name = tuple(
        bytes(of[part][0]) if part in of else b"" for part in (Function.DOMAIN, Function.NAME, Function.OVERLOAD)
    )
    return _Function(
        (name[0], name[1], name[2]),
        [bytes(value) for value in of.get(Function.INPUT, [])],
        [bytes(value) for value in of.get(Function.OUTPUT, [])],
        {_get(value, Attribute.NAME): value for value in of.get(Function.DEFAULT, [])},
        of.get(Function.NODE, []),
    )


@dataclass
class _Inliner:
    functions: dict[Name, _Function]
    calls: int = 0
    stack: list[Name] = field(default_factory=list)

    def graph(self, message: memoryview, rename: Rename, given: dict[bytes, memoryview]) -> bytes:
        """Return a graph whose calls are replaced.

        Args:
            message: the graph.
            rename: gives the new name of a value or node.
            given: the attributes of the call whose body it is part of.
        """
        named = {
            Graph.INITIALIZER: TENSOR_NAME,
            **dict.fromkeys((Graph.INPUT, Graph.OUTPUT, Graph.VALUE_INFO), VALUE_INFO_NAME),
        }
        parts = []
        for number, value, raw in all_fields(message):
            if value is None:
                parts.append(bytes(raw))
            elif number == Graph.NODE:
                parts += [to_field(Graph.NODE, node) for node in self.node(value, rename, given)]
            elif number == Graph.SPARSE_INITIALIZER and rename(b"name") != b"name":
                raise ValueError("a sparse tensor in a function")
            elif number in named:
                parts.append(to_field(number, _renamed(value, {named[Graph(number)]: rename})))
            else:
                parts.append(bytes(raw))
        return b"".join(parts)

    def node(self, message: memoryview, rename: Rename, given: dict[bytes, memoryview]) -> Iterator[bytes]:
        """Yield a node, or those of the function that it calls."""
        name = (_get(message, Node.DOMAIN), _get(message, Node.OP_TYPE), _get(message, Node.OVERLOAD))
        attributes = [
            attribute
            for number, value in fields(message)
            if number == Node.ATTRIBUTE and (attribute := self._attribute(value, rename, given)) is not None
        ]
        if name not in self.functions:
            kept = b"".join(bytes(raw) for number, _, raw in all_fields(message) if number != Node.ATTRIBUTE)
            names: dict[int, Rename] = {Node.INPUT: rename, Node.OUTPUT: rename, Node.NAME: rename}
            yield _renamed(memoryview(kept), names) + b"".join(to_field(Node.ATTRIBUTE, each) for each in attributes)
            return
        self.calls += 1
        if name in self.stack or self.calls > MOST_CALLS:
            raise _EndlessError(f"its function {name[1].decode(errors='replace')} calls itself, or too many others")
        function = self.functions[name]
        actual: dict[bytes, bytes] = {}
        for formal, kind in ((function.inputs, Node.INPUT), (function.outputs, Node.OUTPUT)):
            passed = [bytes(value) for number, value in fields(message) if number == kind]
            for inside, outside in zip_longest(formal, passed[: len(formal)], fillvalue=b""):
                if outside or kind == Node.INPUT:  # the body may use what the call leaves out of its outputs
                    actual[inside] = rename(outside) if outside else b""
        prefix = b"inlined_%d/" % self.calls
        own = function.defaults | {_get(memoryview(value), Attribute.NAME): memoryview(value) for value in attributes}
        self.stack.append(name)
        for inner in function.nodes:
            yield from self.node(inner, lambda inner_name: actual.get(inner_name, prefix + inner_name), own)
        self.stack.pop()

    def _attribute(self, message: memoryview, rename: Rename, given: dict[bytes, memoryview]) -> bytes | None:
        """Return an attribute with what it refers to; None if it refers to one that the call leaves out."""
        reference = _get(message, Attribute.REFERENCE)
        if reference:
            if reference not in given:
                return None
            return _renamed(given[reference], {Attribute.NAME: lambda _: _get(message, Attribute.NAME)})
        parts = []
        for number, value, raw in all_fields(message):
            if number in (Attribute.GRAPH, Attribute.GRAPHS) and value is not None:
                parts.append(to_field(number, self.graph(value, rename, given)))
            else:
                parts.append(bytes(raw))
        return b"".join(parts)


def _renamed(message: memoryview, renames: dict[int, Rename]) -> bytes:
    """Return a message with other names in the fields of these numbers; an empty one, of what is absent, stays."""
    parts = []
    for number, value, raw in all_fields(message):
        if value and number in renames:
            parts.append(to_field(number, renames[number](bytes(value))))
        else:
            parts.append(bytes(raw))
    return b"".join(parts)


def _get(message: memoryview, number: int) -> bytes:
    """Return a field of bytes or text; empty if it is absent."""
    return next((bytes(value) for found, value in fields(message) if found == number), b"")

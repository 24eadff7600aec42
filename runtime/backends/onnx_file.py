"""Read what the runtime needs of an ONNX file, and take its stages out of it, without the `onnx` package.

`onnx_wire` knows its format.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..errors import EngineBuildError, ModelLoadError
from ..metadata import Key
from .onnx_wire import (
    ENTRY_KEY,
    ENTRY_VALUE,
    TENSOR_NAME,
    VALUE_INFO_NAME,
    Function,
    Graph,
    Model,
    Node,
    field,
    fields,
    number_field,
    text,
)

PLUGIN_DOMAIN = "ignn"

_IR = 10
"""Version of the format of the stages' models: that of the files of `ignn export`."""


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
        for number, value in fields(memoryview(model)):
            if number == Model.METADATA:
                entry = dict(fields(value))
                properties[text(entry[ENTRY_KEY])] = text(entry[ENTRY_VALUE])
            elif number == Model.GRAPH:
                has_graph = True
                for inner, node in fields(value):
                    if inner == Graph.NODE:
                        facts = dict(fields(node))
                        has_loop |= facts[Node.OP_TYPE] == b"Loop"
                        if Node.DOMAIN in facts and text(facts[Node.DOMAIN]) == PLUGIN_DOMAIN:
                            calls[text(facts[Node.OP_TYPE])] += 1
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
    functions, common = [], bytearray(number_field(Model.IR_VERSION, _IR))
    weights: dict[bytes, memoryview] = {}
    for number, value in fields(memoryview(model)):
        if number == Model.FUNCTION:
            functions.append(value)
        if number in (Model.OPSET_IMPORT, Model.FUNCTION):
            common += field(number, value)
        elif number == Model.GRAPH:
            for inner, tensor in fields(value):
                if inner == Graph.INITIALIZER:
                    weights[bytes(dict(fields(tensor))[TENSOR_NAME])] = tensor
    models = {}
    for function in functions:
        facts = dict(fields(function))
        if text(facts.get(Function.DOMAIN, memoryview(b""))) != domain:
            continue
        described = [value for number, value in fields(function) if number == Function.VALUE_INFO]
        types = {bytes(dict(fields(value))[VALUE_INFO_NAME]): value for value in described}
        inputs = [bytes(value) for number, value in fields(function) if number == Function.INPUT]
        outputs = [bytes(value) for number, value in fields(function) if number == Function.OUTPUT]
        call = b"".join(
            [field(Node.INPUT, name) for name in inputs]
            + [field(Node.OUTPUT, name) for name in outputs]
            + [field(Node.NAME, facts[Function.NAME]), field(Node.OP_TYPE, facts[Function.NAME])]
            + [field(Node.DOMAIN, domain.encode())]
        )
        graph = b"".join(
            [field(Graph.NODE, call), field(Graph.NAME, facts[Function.NAME])]
            + [field(Graph.INITIALIZER, weights[name]) for name in inputs if name not in types]
            + [field(Graph.INPUT, types[name]) for name in inputs if name in types]
            + [field(Graph.OUTPUT, types[name]) for name in outputs]
        )
        models[text(facts[Function.NAME])] = bytes(common) + field(Model.GRAPH, graph)
    return models

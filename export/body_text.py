"""Read the text of a model-local function's body, in which `c_0_m1` stands for the constant int64 tensor [0, -1]."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx
import onnx.parser

_CONSTANT = r"\bc(?:_m?\d+)+\b"


def parse(text: str, domain: str, opset: int) -> onnx.FunctionProto:
    """Parse a body after declaring its `c_...` constants, those of a loop inside the loop.

    ONNX Runtime computes what calls of a function have in common once, unless a loop refers to it.
    """
    head, body = text.strip().split("{", 1)
    if "<body =" not in body:
        function = _parsed(f"{head}{{\n{_constants(body)}{body}", domain, opset)
        return _named(function, function.node)
    before, loop = body.split("<body =", 1)
    loop_head, rest = loop.split("{", 1)
    inside, after = rest.split("}>", 1)
    inside = _constants(inside, "l") + re.sub(_CONSTANT, lambda match: "l" + match[0][1:], inside)
    function = _parsed(
        f"{head}{{\n{_constants(before + after)}{before}<body ={loop_head}{{\n{inside}}}>{after}", domain, opset
    )
    loops = [node.attribute[0].g.node for node in function.node if node.op_type == "Loop"]
    return _named(function, [*function.node, *(node for loop in loops for node in loop)])


def _parsed(text: str, domain: str, opset: int) -> onnx.FunctionProto:
    return onnx.parser.parse_function(f'<domain: "{domain}", opset_import: ["" : {opset}]>\n{text}')


def _named(function: onnx.FunctionProto, nodes: Iterable[onnx.NodeProto]) -> onnx.FunctionProto:
    for node in nodes:
        node.name = node.output[0]  # for profiles and error messages
    return function


def _constants(text: str, prefix: str = "c") -> str:
    """Return lines that declare the constants of a text, with another first letter if need be."""
    lines = []
    for name in sorted(set(re.findall(_CONSTANT, text))):
        values = [part.replace("m", "-") for part in name.split("_")[1:]]
        tensor = f"int64[{len(values)}] {{{', '.join(values)}}}"
        lines.append(f"  {prefix}{name[1:]} = Constant <value = {tensor}> ()\n")
    return "".join(lines)

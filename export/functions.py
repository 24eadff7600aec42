"""The three graph operators as ONNX model-local functions: what runs where no plugin replaces the node.

The bodies mean what `train.ops` means, in standard operators, for any batch, height and width, in time and memory
linear in the pixels. They suit ONNX Runtime's CPU kernels: rows of channels-last maps are gathered along axis 0 (an
order of magnitude faster than columns of NCHW), and every decision that depends on a position (which patches lie over
a pixel, what happens at a border) is made on small integer tensors, never on a feature map.

Constants are `value` tensors: tools such as onnxslim read `value_float` as float64. An attribute of type float becomes
a tensor by LeakyRelu, whose slope it is.
"""

from __future__ import annotations

import onnx

from export import adapn_gather_body, patch_statistics_body, windowed_knn_body
from export.body_text import parse

DOMAIN = "ignn"
"""Domain of the operators and of their functions; also the plugin's namespace."""
DOMAIN_VERSION = 1
OPSET = 20
"""ONNX operator set of the bodies and of the exported file."""


def functions() -> list[onnx.FunctionProto]:
    """Return the functions that a model with nodes of domain `ignn` carries."""
    texts = windowed_knn_body.text(), patch_statistics_body.key_text(), adapn_gather_body.text()
    return [parse(text, DOMAIN, OPSET) for text in texts]

"""The runtime: image in, image out.

`from runtime import SuperResolver` is all an application needs. Names are loaded on first use, so that a bare import
costs next to nothing and touches neither NumPy, Pillow nor ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.errors import IgnnError
    from runtime.super_resolver import SuperResolver

__all__ = ["IgnnError", "SuperResolver"]

_HOME = {"IgnnError": "runtime.errors", "SuperResolver": "runtime.super_resolver"}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")

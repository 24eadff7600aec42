"""Enlarge images: the part of the project that applications install.

`from ignn import SuperResolver` is all an application needs; in a clone of the project the same package is also called
`runtime`, after its folder. Names are loaded on first use, so that a bare import costs next to nothing and touches
neither NumPy, Pillow nor ONNX Runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .clone import IN_CLONE

if TYPE_CHECKING:
    from .errors import IgnnError
    from .serving.remote import RemoteResolver
    from .super_resolver import SuperResolver

__all__ = ["IgnnError", "RemoteResolver", "SuperResolver"]

_HOME = {"IgnnError": ".errors", "RemoteResolver": ".serving.remote", "SuperResolver": ".super_resolver"}

if IN_CLONE and __name__ in ("ignn", "runtime"):
    from .two_names import share_modules

    share_modules(__name__, "runtime" if __name__ == "ignn" else "ignn")


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

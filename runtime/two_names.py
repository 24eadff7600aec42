"""In a clone this package is found by two names, `runtime` (its folder) and `ignn` (the wheel's): one copy for both.

A class that existed twice would not be caught by `except`, nor pass `isinstance`. A wheel has one name only, and there
this module is never imported: another package called `runtime` is none of its business.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType


def share_modules(*, loaded: str, other: str) -> None:
    """Make the package `other` and everything below it names of the modules of the package `loaded`."""
    sys.modules[other] = sys.modules[loaded]
    sys.meta_path.insert(0, _Finder(loaded, other))


class _Finder(MetaPathFinder):
    def __init__(self, loaded: str, other: str) -> None:
        self._loaded, self._other = loaded, other

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(self._other + "."):
            return None
        module = import_module(self._loaded + name.removeprefix(self._other))
        return spec_from_loader(name, _SameModule(module), is_package=hasattr(module, "__path__"))


class _SameModule(Loader):
    """Gives a module that is imported already, and leaves it as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just put the other name's there

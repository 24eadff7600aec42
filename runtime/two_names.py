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
from importlib.util import find_spec, spec_from_loader
from pathlib import Path
from types import ModuleType


def share_modules(one: str, two: str) -> None:
    """Make two names of a package, and of everything below it, names of the same modules: of those loaded first.

    Args:
        one: the name under which the package is being imported now.
        two: its other name. It is loaded already where a wheel is installed, and a clone is the working folder.
    """
    if sys.modules.get(two) is sys.modules[one]:  # the package is imported again, by importlib.reload
        return
    if two in sys.modules and not _is_ours(sys.modules[two]):  # a stranger has the name
        return
    loaded, other = (two, one) if two in sys.modules else (one, two)
    for name in [name for name in sys.modules if name.startswith(other + ".")]:
        del sys.modules[name]  # what this import has loaded until now
    sys.modules[other] = sys.modules[loaded]
    sys.meta_path.insert(0, _Finder(loaded, other))


def _is_ours(package: ModuleType) -> bool:
    return any((Path(folder) / Path(__file__).name).is_file() for folder in getattr(package, "__path__", ()))


class _Finder(MetaPathFinder):
    def __init__(self, loaded: str, other: str) -> None:
        self._loaded, self._other = loaded, other

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(self._other + "."):
            return None
        same = self._loaded + name.removeprefix(self._other)
        if find_spec(same) is None:
            return None
        module = import_module(same)
        return spec_from_loader(name, _SameModule(module), is_package=hasattr(module, "__path__"))


class _SameModule(Loader):
    """Gives a module that is imported already, and leaves it as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just put the other name's there

"""The libraries of the extra `formats`, each loaded when a file needs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..clone import install_command
from ..errors import BackendUnavailableError
from .source import Source

EXTRA = "formats"


def load_library(module: str, source: Source, kind: str) -> ModuleType:
    """Import the library that reads a kind of file.

    Args:
        module: its name in Python.
        source: the file that needs it.
        kind: what the file is: "a JPEG XL".

    Raises:
        BackendUnavailableError: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{source.name} is {kind}, which needs {module} ({error}). Install it with: {install_command(EXTRA)}"
        ) from error

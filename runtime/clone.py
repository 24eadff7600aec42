"""Tell whether this code lies in a clone or was installed from a wheel, and which commands are true then."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

PACKAGE_FOLDER = Path(__file__).resolve().parent
IN_CLONE = PACKAGE_FOLDER.name == "runtime"
"""Whether this package is a clone's folder `runtime`; a wheel installs it as `ignn`."""


def find_clone() -> Path | None:
    """Return the folder of the clone: the one above this package, else the working folder; None if neither is one."""
    for folder in (PACKAGE_FOLDER.parent, Path.cwd()):
        if (folder / "runtime" / "clone.py").is_file() and (folder / "export" / "to_onnx.py").is_file():
            return folder
    return None


def restore_command() -> str:
    """Return what to type where a file of this package is missing or damaged."""
    if IN_CLONE:
        return f"git -C '{PACKAGE_FOLDER.parent}' checkout -- runtime"
    return "pip install --force-reinstall --no-deps WHEEL, with the wheel that it was installed from"


def install_command(extra: str) -> str:
    """Return the command that installs an extra, true for a wheel, an editable install and a clone not installed."""
    try:
        metadata.version("ignn")
    except metadata.PackageNotFoundError:
        return f"pip install -e '{PACKAGE_FOLDER.parent}[{extra}]'"
    return f"pip install 'ignn[{extra}]'"

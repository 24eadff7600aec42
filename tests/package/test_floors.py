"""Which folder may import which, which room of `runtime/` may import which, and that no two modules import each other.

Imports are read from the source, those inside functions too. What stands under `if TYPE_CHECKING` is never run: exempt.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

FOLDERS = {
    "runtime": set(),
    "train": {"runtime"},
    "plugins": {"train", "runtime"},  # the kernels are an implementation of the operators in train/ops.py
    "export": {"train", "runtime"},
    "benchmarks": {"export", "train", "runtime", "plugins"},
}
"""What each folder may import, besides itself and libraries."""

GROUND = {"errors", "clone", "atomic", "metadata", "two_names"}
ROOMS = {
    **dict.fromkeys(GROUND, GROUND),
    "models": GROUND,
    "pictures": GROUND,
    "backends": GROUND | {"models"},
    "tiles": GROUND | {"pictures", "backends"},
    "super_resolver": GROUND | {"models", "pictures", "backends", "tiles"},
    "serving": GROUND | {"models", "pictures", "backends", "tiles", "super_resolver"},
    "commands": GROUND | {"models", "pictures", "backends", "tiles", "super_resolver", "serving"},
    "cli": GROUND,  # it finds its commands in a table, and loads the one that was asked for
    "__init__": {"clone", "two_names"},  # and the public names, on first use
}
"""What each room of `runtime/` may import, besides itself: a folder, or a file beside the folders."""

SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
MODULES = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, ours by the files that they are."""
    package = list(path.relative_to(REPOSITORY).parent.parts)
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in MODULES else base


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it that may run."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield from executed(child)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_the_tables_name_every_folder_and_room() -> None:
    folders = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests"}
    assert folders == set(FOLDERS)
    assert {room_of(module) for module in MODULES if module.startswith("runtime")} == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    module = module_name(path)
    folder = module.split(".")[0]
    for name in imports(path):
        other = name.split(".")[0]
        assert other != "ignn", f"{module} imports {name}: the clone's name is runtime"
        if other in FOLDERS and other != folder:
            assert other in FOLDERS[folder], f"{module} imports {name}"
        if folder == other == "runtime" and room_of(name) != room_of(module):
            assert room_of(name) in ROOMS[room_of(module)], f"{module} imports {name}"


def test_the_runtime_names_itself_relatively() -> None:
    """It is called `ignn` where it is installed from a wheel."""
    for path in (REPOSITORY / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {"runtime", "ignn"} & {name.split(".")[0] for name in names}, path


def test_no_circle() -> None:
    graph = {module_name(path): {name for name in imports(path) if name in MODULES} for path in SOURCES}
    for module, others in graph.items():
        others.discard(module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("circle: " + " <- ".join(error.args[1]))


def test_one_module_imports_onnx_runtime() -> None:
    """It switches the telemetry off first."""
    found = {module_name(path) for path in SOURCES if "onnxruntime" in {name.split(".")[0] for name in imports(path)}}
    assert found == {"runtime.backends.onnx_runtime"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    from ..tiles import plan", ["runtime.tiles.plan"]),
        ("from . import Backend, ort", ["runtime.backends", "runtime.backends.ort"]),
        ("import numpy as np", ["numpy"]),
        ("if TYPE_CHECKING:\n    from ..cli import main", []),
        ("from runtime.cli import main", ["runtime.cli"]),
    ],
)
def test_imports_are_found(source: str, found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: source)
    assert list(imports(REPOSITORY / "runtime" / "backends" / "any.py")) == found

"""`runtime` and `ignn` are names of the same modules, whichever is imported first, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def python(tmp_path: Path):
    """Runs a program that finds the package by both names, as after `pip install -e .`; gives its output."""
    names = tmp_path / "names"
    names.mkdir()
    try:
        (names / "ignn").symlink_to(REPOSITORY / "runtime", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no symbolic links")

    def run(*arguments: str, before: Path | None = None, code: int = 0) -> str:
        path = [*([str(before)] if before else []), str(names), str(REPOSITORY)]
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


ORDERS = pytest.mark.parametrize(("first", "second"), [("runtime", "ignn"), ("ignn", "runtime")])


@ORDERS
@pytest.mark.parametrize(
    "program",
    [
        "import {first}, {second}; assert {first} is {second}",
        "from {first} import SuperResolver as a; from {second} import SuperResolver as b; assert a is b",
        "import {first}.errors, {second}.errors; assert {first}.errors is {second}.errors",
        "import {first}.errors; from {second} import errors; assert errors is {first}.errors",
        "import {first}.pictures.read as a; import {second}.pictures.read as b; assert a is b",
        "from {first}.pictures import read as a; from {second}.pictures import read as b; assert a is b",
        "import {first}; import {second}.pictures.picture as b; import {first}.pictures.picture as a; assert a is b",
        "import {first}.tiles; import {second}.tiles.plan; assert {first}.tiles.plan is {second}.tiles.plan",
        "import {first}; from {second}.errors import IgnnError as b; assert {first}.IgnnError is b",
    ],
)
def test_one_copy(python, first: str, second: str, program: str) -> None:
    python("-c", program.format(first=first, second=second))


@ORDERS
def test_no_class_of_the_package_exists_twice(python, first: str, second: str) -> None:
    """All modules, imported by both names in turn."""
    python(
        "-c",
        f"""
import importlib, pathlib, sys
root = pathlib.Path({str(REPOSITORY / "runtime")!r})
names = [".".join(p.relative_to(root).with_suffix("").parts) for p in sorted(root.rglob("*.py"))]
skipped = ("__main__", "engine_child")  # programs
for name in (n.removesuffix("__init__").strip(".") for n in names if not n.endswith(skipped)):
    own = [importlib.import_module(f"{{package}}.{{name}}".strip(".")) for package in ({first!r}, {second!r})]
    assert own[0] is own[1], name
found = {{}}
for module in {{id(m): m for n, m in sys.modules.items() if n.split(".")[0] in ("runtime", "ignn")}}.values():
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__.split(".")[0] in ("runtime", "ignn"):
            key = value.__module__.split(".", 1)[-1], value.__qualname__
            assert found.setdefault(key, value) is value, key
assert len(found) > 30
""",
    )


@ORDERS
def test_errors_pass_between_processes(python, first: str, second: str) -> None:
    python(
        "-c",
        f"import pickle, {first}.errors, {second}.errors as other\n"
        f"error = pickle.loads(pickle.dumps({first}.errors.UsageError('wrong')))\n"
        "assert isinstance(error, other.IgnnError) and type(error) is other.UsageError and str(error) == 'wrong'",
    )


@ORDERS
def test_reload(python, first: str, second: str) -> None:
    python(
        "-c",
        f"""
import importlib, sys, {first}, {second}.errors
finders = len(sys.meta_path)
for module in ({first}, {second}, {first}.errors, {second}.errors):
    assert importlib.reload(module) is module
assert {first} is {second} and {first}.errors is {second}.errors and len(sys.meta_path) == finders
""",
    )


@ORDERS
def test_what_is_absent(python, first: str, second: str) -> None:
    python(
        "-c",
        f"""
import importlib.util, {first}
assert importlib.util.find_spec("{second}.nonesuch") is None
try:
    import {second}.nonesuch
except ModuleNotFoundError as error:
    assert error.name == "{second}.nonesuch"
""",
    )


@pytest.mark.parametrize("name", ["runtime", "ignn"])
def test_as_a_program(python, name: str) -> None:
    assert "in a clone of the project" in python("-m", f"{name}.cli", "--help")
    assert "Supported values are" in python("-m", f"{name}.cli", "nonesuch", code=1)
    assert "bundled models match" in python("-m", f"{name}.models")


def test_a_stranger_called_runtime_is_left_alone(python, tmp_path: Path) -> None:
    (tmp_path / "others" / "runtime").mkdir(parents=True)
    (tmp_path / "others" / "runtime" / "__init__.py").write_text("stranger = True\n")
    (tmp_path / "others" / "runtime" / "errors.py").write_text("stranger = True\n")
    program = "import runtime.errors, ignn.errors; assert runtime.errors.stranger and ignn.errors.IgnnError"
    python("-c", program, before=tmp_path / "others")


def test_a_wheel_first_and_then_a_clone(python, tmp_path: Path) -> None:
    """A wheel's copy is loaded, and a program then imports a clone's `runtime`: it gets the copy that is there."""
    wheel = tmp_path / "site-packages"
    for path in (REPOSITORY / "runtime").rglob("*.py"):
        copy = wheel / "ignn" / path.relative_to(REPOSITORY / "runtime")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    program = (
        "import ignn.errors, runtime.errors, sys; assert runtime is ignn and runtime.errors is ignn.errors;"
        f"assert {str(wheel)!r} in ignn.__file__; from runtime.clone import IN_CLONE; assert not IN_CLONE;"
        "assert sys.modules['runtime.clone'] is sys.modules['ignn.clone']"
    )
    python("-c", program, before=wheel)

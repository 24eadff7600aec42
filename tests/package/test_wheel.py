"""The wheel as its users get it: built from the tracked files, installed where no clone is, and run from there.

It makes its own environments and downloads what they need, so it runs as a step of .ci/run: pytest -m wheel.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from runtime.cli import CLONE_COMMANDS, COMMANDS

pytestmark = pytest.mark.wheel

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"


class Built(NamedTuple):
    source: Path
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path
    twine: Path


class Environment(NamedTuple):
    """A virtual environment in which only the wheel was installed, and a working folder far from any clone."""

    folder: Path
    work: Path

    def run(
        self, *command: object, cwd: Path | None = None, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> str:
        """Run a program of the environment; returns standard output and standard error."""
        program = self.folder / SCRIPTS / str(command[0])
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP") if name in os.environ}
        done = subprocess.run(
            [str(program), *map(str, command[1:])],
            cwd=cwd or self.work,
            env={**kept, "HOME": str(self.work), **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


def call(*command: object, cwd: Path | None = None) -> None:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def find_python(version: str) -> Path:
    """Return an interpreter of that version; the test is skipped by name where there is none."""
    places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        places.insert(0, sys.executable)
    for place in filter(None, places):
        ask = [str(place), "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() == version:
            return Path(place)
    pytest.skip(f"Python {version} is not here")


def copy_tracked_files(target: Path) -> Path:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def make_environment(folder: Path, python: Path, *what: object, constraints: Sequence[str] = ()) -> Environment:
    call(python, "-m", "venv", folder / "venv")
    environment = Environment(folder / "venv", folder / "work")
    environment.work.mkdir()
    (folder / "constraints.txt").write_text("\n".join(constraints))
    pip = [environment.folder / SCRIPTS / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    call(*pip, "--constraint", folder / "constraints.txt", *what)
    return environment


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and sdist, made from a copy of the tracked files: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("built")
    source = copy_tracked_files(folder / "source")
    tools = make_environment(folder, Path(sys.executable), "build", "twine")
    python = tools.folder / SCRIPTS / "python"
    call(python, "-m", "build", "--sdist", "--outdir", folder / "sdist", source)
    (sdist,) = (folder / "sdist").iterdir()
    for name, origin in (("wheel", source), ("again", sdist)):
        call(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder / name, origin)
    (wheel,), (again,) = (list((folder / name).iterdir()) for name in ("wheel", "again"))
    return Built(source, wheel, sdist, again, tools.folder / SCRIPTS / "twine")


def lowest_versions() -> list[str]:
    """Return constraints to the oldest versions that are accepted."""
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cpu"]]
    return [re.sub(r"^([\w-]+)>=([\w.]+).*", r"\1==\2", requirement) for requirement in wanted]


@pytest.fixture(scope="module", params=["3.11, oldest libraries", "3.12", "3.13"])
def installed(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with the extra `cpu` in an environment of its own."""
    version, _, oldest = request.param.partition(", ")
    python = find_python(version)
    constraints = lowest_versions() if oldest else []
    return make_environment(
        tmp_path_factory.mktemp("installed"), python, f"ignn[cpu] @ {built.wheel.as_uri()}", constraints=constraints
    )


@pytest.fixture(scope="module")
def clone(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone one of whose commands says what its process has loaded, and ends with 7."""
    folder = copy_tracked_files(tmp_path_factory.mktemp("clone"))
    (folder / "export" / "to_engine.py").write_text(
        "import sys\n"
        "import ignn.errors, runtime.super_resolver\n"
        "def main(argv):\n"
        "    modules = {n: m for n, m in sys.modules.items() if n.split('.')[0] in ('ignn', 'runtime')}\n"
        "    print('arguments', argv)\n"
        "    for name in sorted(modules): print('file', modules[name].__file__)\n"
        "    assert ignn.errors is runtime.errors\n"
        "    return 7\n"
    )
    return folder


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_wheel_holds_the_runtime_and_nothing_else(built: Built) -> None:
    found = contents(built.wheel)
    tracked = {path.relative_to(built.source / "runtime") for path in (built.source / "runtime").rglob("*")}
    wanted = {
        f"ignn/{path.as_posix()}" for path in tracked if path.suffix in (".py", ".onnx", ".json", ".md", ".typed")
    }
    assert {"ignn/py.typed", "ignn/models/models.json", "ignn/models/ignn-s-x2.md", "ignn/two_names.py"} < wanted
    information = f"ignn-{PROJECT['version']}.dist-info/"
    assert {name for name in found if not name.startswith(information)} == wanted
    assert {name.removeprefix(information) for name in found if name.startswith(information)} == {
        "METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE",
        "licenses/runtime/models/LICENSE.md",
    }  # fmt: skip
    assert found[information + "top_level.txt"].split() == [b"ignn"]


def test_the_sdist_builds_the_same_wheel(built: Built) -> None:
    ours, again = contents(built.wheel), contents(built.wheel_of_sdist)
    assert ours.keys() == again.keys()
    assert [name for name in ours if ours[name] != again[name]] == []
    with tarfile.open(built.sdist) as file:
        names = {name.split("/")[1] for name in file.getnames() if "/" in name}
    assert not {"train", "export", "plugins", "benchmarks", "tests", "assets"} & names


def test_an_index_would_take_them(built: Built) -> None:
    call(built.twine, "check", "--strict", built.wheel, built.sdist)
    metadata = email.message_from_bytes(contents(built.wheel)[f"ignn-{PROJECT['version']}.dist-info/METADATA"])
    description = metadata.get_payload()
    assert isinstance(description, str)
    assert description.lstrip().startswith("# ")
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert [link for link in links if not link.startswith("http")] == []
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-SA-4.0"
    assert len(metadata.get_all("Project-URL", [])) == len(PROJECT["urls"])


def test_what_is_installed(installed: Environment) -> None:
    """One folder in site-packages, and one command."""
    program = "from importlib import metadata as m; print(*{f.parts[0] for f in m.files('ignn')})"
    first = {name for name in installed.run("python", "-c", program).split() if name != ".."}
    assert first == {"ignn", f"ignn-{PROJECT['version']}.dist-info"}
    assert f"ignn {PROJECT['version']}" in installed.run("ignn", "--version")


def test_python(installed: Environment) -> None:
    """Neither PyTorch nor onnx is loaded, nor another package of the clone; the import's time is printed."""
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB").save(installed.work / "in.png")
    program = """
import sys, time
start = time.perf_counter()
from ignn import IgnnError, SuperResolver
print(f"import: {time.perf_counter() - start:.2f} s")
assert SuperResolver()("in.png").size == (80, 60)
try:
    SuperResolver("nonesuch")
except IgnnError as error:
    assert "ignn-s-x2" in str(error)
import numpy, PIL, onnxruntime
print("Python", sys.version.split()[0], "numpy", numpy.__version__, "pillow", PIL.__version__, onnxruntime.__version__)
found = {name.split(".")[0] for name in sys.modules}
assert not found & {"torch", "onnx", "runtime", "train", "export", "plugins", "benchmarks"}, found
for name in ("runtime", "train", "export", "plugins", "benchmarks"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
"""
    sys.stdout.write(installed.run("python", "-c", program))


def test_commands(installed: Environment) -> None:
    Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 50).convert("RGB").save(installed.work / "in.png")
    listed = installed.run("ignn", "--help")
    assert all(f"  {name} " in listed for name in (*COMMANDS, *CLONE_COMMANDS))
    installed.run("ignn", code=2)
    for name in COMMANDS:
        assert f"usage: ignn {name} " in installed.run("ignn", name, "--help")
    installed.run("ignn", "upscale", "in.png", "-o", "out/large.png", "--model", "ignn-s-x3", "--compare", "sheet.png")
    assert Image.open(installed.work / "out" / "large.png").size == (120, 90)
    assert "ignn-s-x4" in installed.run("python", "-m", "ignn.cli", "models")
    assert "There is no file" in installed.run("ignn", "upscale", "absent.png", "-o", "x.png", code=1)


def test_doctor(installed: Environment) -> None:
    report = installed.run("ignn", "doctor")
    assert "ok  Model ignn-s-x2" in report
    assert "ok  ONNX Runtime" in report
    assert "Clone of the project: not found" in report
    for extra in ("stream", "video", "ui"):
        assert f"pip install 'ignn[{extra}]'" in report
    assert str(REPOSITORY) not in report


def test_a_hint_installs_what_it_says(installed: Environment) -> None:
    """The package is in no index that this test knows: the command must do with what is installed."""
    told = installed.run("python", "-m", "pip", "install", "--dry-run", "--disable-pip-version-check", "ignn[stream]")
    assert "Would install" in told
    assert "pyvips" in told
    assert "ignn-" not in told.split("Would install")[1]


def test_commands_of_clones_outside_one(installed: Environment) -> None:
    for name in CLONE_COMMANDS:
        told = installed.run("ignn", name, "--help", code=1)
        assert f"`ignn {name}` works in a clone of the project" in told
        assert "Traceback" not in told


def test_commands_of_clones_in_one(installed: Environment, clone: Path) -> None:
    """The clone's own code runs, in a process that has loaded nothing of the wheel; its exit code is ours."""
    told = installed.run("ignn", "build", "a b", "--c", cwd=clone, code=7)
    assert "arguments ['a b', '--c']" in told
    files = re.findall(r"^file (.*)$", told, re.MULTILINE)
    assert len(files) > 10
    assert [file for file in files if not Path(file).is_relative_to(clone / "runtime")] == []
    told = installed.run("ignn", "train", "--help", cwd=clone, code=1)
    assert "needs the module" in told
    assert "pip install 'ignn[train,cpu]'" in told


def test_a_stranger_called_runtime(installed: Environment) -> None:
    others = installed.work / "others" / "runtime"
    others.mkdir(parents=True)
    (others / "__init__.py").write_text("stranger = True\n")
    (others / "errors.py").write_text("")
    for program in ("import runtime.errors, ignn.errors", "import ignn.errors, runtime.errors"):
        installed.run(
            "python", "-c", f"{program}; assert runtime.stranger and ignn.errors is not runtime.errors",
            variables={"PYTHONPATH": str(others.parent)},
        )  # fmt: skip


def test_an_editable_install(clone: Path, tmp_path: Path) -> None:
    """From any working folder: both names are the clone's modules, and the clone's other folders are there."""
    environment = make_environment(tmp_path, Path(sys.executable), "--editable", f"{clone}[cpu]")
    for first, second in (("ignn", "runtime"), ("runtime", "ignn")):
        environment.run(
            "python",
            "-c",
            f"from {first} import SuperResolver as a; from {second} import SuperResolver as b; assert a is b;"
            f"import {second}.errors as c, {first}.errors as d; assert c is d;"
            f"assert c.__file__.startswith({str(clone)!r});"
            "import importlib.util as u; assert all(map(u.find_spec, ('train', 'export', 'plugins', 'benchmarks')))",
        )
    assert "arguments ['x']" in environment.run("ignn", "build", "x", code=7)
    assert f"Clone of the project: {clone}" in environment.run("ignn", "doctor")
    environment.run("python", "-m", "runtime.cli", "models")
    environment.run("python", "-m", "ignn.cli", "models")

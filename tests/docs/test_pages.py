"""The pages: examples run, command lines parse, every option is described, every link leads somewhere."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image

from runtime.cli import CLONE_COMMANDS, COMMANDS
from runtime.cli import main as ignn

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDERS = (".", "assets", "benchmarks/**", "docs", "docs/demo", "runtime/models", "train/**")
PAGES = sorted(page for folder in FOLDERS for page in REPOSITORY.glob(f"{folder}/*.md"))
RUN = "<!-- run -->\n"
"""Stands before a block that is run as it is; other blocks need data, time or a GPU, and are parsed."""

NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
ON_PAGES = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def blocks(page: Path, language: str) -> Iterator[tuple[bool, str]]:
    """Code blocks of a page in order: whether they are run, and the code."""
    pattern = rf"^({re.escape(RUN)})?```{language}\n(.*?)^```$"
    for match in re.finditer(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield match[1] is not None, match[2]


def command_lines(code: str) -> Iterator[list[str]]:
    """Commands of a block, as words, without comments and without what they are chained to."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the examples name."""
    with Image.open(REPOSITORY / "assets" / "sample.png") as sample:
        photograph = sample.convert("RGB").resize((30, 20))
    (tmp_path / "pictures").mkdir()
    for name in ("photo.jpg", "photo.png", "pictures/a.png", "pictures/b.png"):
        photograph.save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN_PAGES = [page for page in PAGES if any(run for run, _ in blocks(page, "python"))]


def test_some_pages_have_examples_that_run() -> None:
    assert {page.name for page in RUN_PAGES} >= {"api.md", "deployment.md", "operators.md", "training.md"}


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_order(page: Path, pictures: Path) -> None:
    if page.name in ("training.md", "operators.md"):
        pytest.importorskip("torch")
    names: dict[str, Any] = {"__name__": "page"}
    code = [code for run, code in blocks(page, "python") if run]
    assert code
    for block in code:
        exec(compile(block, str(page), "exec"), names)


@ON_PAGES
def test_python_blocks_compile(page: Path) -> None:
    for _, code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_the_readmes_lines_of_python_give_a_large_picture(pictures: Path) -> None:
    ((_, code),) = blocks(REPOSITORY / "README.md", "python")
    assert len([line for line in code.splitlines() if line]) == 3
    exec(compile(code, "README.md", "exec"), {})
    assert Image.open("large.png").size == (120, 80)


def test_bash_blocks_run(pictures: Path) -> None:
    ran = [code for page in PAGES for run, code in blocks(page, "bash") if run]
    lines = [words for code in ran for words in command_lines(code)]
    assert lines
    for words in lines:
        assert words[0] == "ignn"
        assert ignn(words[1:]) == 0, words
    assert Image.open("large.png").size == (60, 40)
    assert {path.name for path in (pictures / "out").iterdir()} >= {"photo.webp", "sheet.png", "both.png", "a_x2.png"}


class Parsed(BaseException):
    """Raised in the place of the work that follows the parsing."""


MODULES = {
    "benchmarks": "benchmarks.__main__",
    "export/to_onnx.py": "export.to_onnx",
    "export.bundle": "export.bundle",
    "train.fit": "train.fit",
}


def main_of(words: list[str]) -> tuple[Any, list[str]] | None:
    """The function that parses a command line, and its arguments; None for a program of others."""
    if words[0].endswith("/ignn"):
        words = ["ignn", *words[1:]]
    if words[0] == "ignn":
        name, *arguments = words[1:]
        if name in COMMANDS:
            return importlib.import_module(COMMANDS[name][0], "runtime").main, arguments
        module, function, *_ = CLONE_COMMANDS[name]
        return getattr(importlib.import_module(module), function), arguments
    if "python" in words[0] or words[0] == "torchrun":
        for number, word in enumerate(words):
            if word in MODULES:
                return importlib.import_module(MODULES[word]).main, words[number + 1 :]
    return None


@ON_PAGES
def test_command_lines_parse(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each `ignn ...` and `python -m ...` of the page has a command, options and values that exist."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *arguments: Any, **named: Any) -> NoReturn:
        parse(self, *arguments, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.chdir(tmp_path)  # nothing that a command line names is there
    for _, code in blocks(page, "bash"):
        for words in command_lines(code):
            found = main_of(words)
            if found is not None:
                with pytest.raises(Parsed):
                    found[0](found[1])


def options_of(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The long options of `ignn NAME`."""
    monkeypatch.setenv("COLUMNS", "300")
    found = main_of(["ignn", name, "--help"])
    assert found is not None
    with pytest.raises(SystemExit):
        found[0](found[1])
    listed = re.findall(
        r"^  (?:-\w(?: \S+)?, )?(--[a-z0-9-]+(?:(?: \S+)?, --[a-z0-9-]+)*)", capsys.readouterr().out, re.M
    )
    return {option for line in listed for option in re.findall(r"--[a-z0-9-]+", line)} - {"--help"}


HOME = {"build": "deployment", "export": "deployment", "verify": "deployment"}
HOME |= {**dict.fromkeys(COMMANDS, "api"), "serve": "scale", "probe": "scale"}
HOME |= dict.fromkeys(("train", "photographs", "evaluate", "scoreboard", "ablation", "neighbors"), "training")
HOME |= dict.fromkeys(("graphagg-star", "feature-maps"), "training")
del HOME["batch"]  # its own options stand in scale.md, those of `ignn upscale` in api.md
"""The page of a command; any other command may stand on any page below docs/."""


@pytest.mark.parametrize("name", [*COMMANDS, *CLONE_COMMANDS])
def test_every_command_and_option_is_described(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [path for path in (REPOSITORY / "docs").rglob("*.md") if "node_modules" not in path.parts]
    pages = [page for page in pages if HOME.get(name, page.stem) == page.stem]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert f"ignn {name}" in text
    described = set(re.findall(r"--[a-z0-9-]+", text))
    options = options_of(name, capsys, monkeypatch)
    assert options <= described, f"{name}: docs/ does not describe {sorted(options - described)}"


def test_options_are_read_from_the_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above would pass if it found none."""
    assert {"--output", "--tile", "--halo", "--resume"} <= options_of("upscale", capsys, monkeypatch)
    assert {"--no-tensorboard", "--bf16", "--network", "--data"} <= options_of("train", capsys, monkeypatch)


def test_arguments_and_errors_of_the_class_are_described() -> None:
    import inspect

    from runtime import SuperResolver, errors

    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    for name, parameter in inspect.signature(SuperResolver).parameters.items():
        default = f'`"{parameter.default}"`' if isinstance(parameter.default, str) else str(parameter.default)
        assert f"| `{name}` | {default} |" in text, f"docs/api.md does not describe {name}, whose default is {default}"
    for name, attribute in vars(SuperResolver).items():
        if isinstance(attribute, property):
            assert f"`{name}`" in text, f"docs/api.md does not describe the attribute {name}"
    classes = {name for name, found in vars(errors).items() if inspect.isclass(found) and issubclass(found, Exception)}
    described = set(re.findall(r"`(\w+Error)`", text))
    assert classes == described & classes, f"docs/api.md does not name {sorted(classes - described)}"
    table = text.split("### Errors")[1].split("Warnings go")[0]
    assert set(re.findall(r"`(\w+Error)`", table)) - {"ValueError"} <= classes


def test_every_extra_is_described() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8").split("## Extras")[1].split("##")[0]
    described = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)
    }
    assert described == set(project["optional-dependencies"])


def test_settings_of_a_run_have_the_defaults_that_are_described() -> None:
    pytest.importorskip("torch")
    from dataclasses import fields

    from train.fit_config import FitConfig

    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    defaults = {field.name: field.default for field in fields(FitConfig)}
    rows = [
        row.split("|") for row in text.split("### Settings")[1].split("###")[0].splitlines() if row.startswith("| `")
    ]
    checked = 0
    for _, flags, values, *_ in rows:
        names = [flag[2:].split()[0].replace("-", "_") for flag in re.findall(r"`(--[^`]+)`", flags)]
        given = [value.strip(" `") for value in values.split(",")]
        if len(names) != len(given):
            continue
        for name, value in zip(names, given, strict=True):
            default = defaults[name]
            expected = "" if default in ("", ()) else default
            shown = float(value) if isinstance(expected, (int, float)) else value
            assert shown == expected, f"--{name}: {value} is described, {expected} is the default"
            checked += 1
    assert checked > 15


@ON_PAGES
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


@ON_PAGES
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:runtime|train|export|plugins|benchmarks|tests|assets)/[\w./-]*)`", text):
        assert (REPOSITORY / name).exists() or (page.parent / name).exists(), f"{page.name} names {name}"


def test_the_readme_is_short() -> None:
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert all(len(line) < 120 for line in lines), [line for line in lines if len(line) >= 120]


def test_the_readmes_two_commands_are_there() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert re.search(
        r"^python3\.11 -m venv \.venv && \.venv/bin/pip install .*ignn upscale assets/sample\.png", text, re.M
    )
    assert len(re.findall(r"^\.venv/bin/pip install .*pytest", text, re.M)) == 1

"""The command that looks through folders of real files, on a folder of four."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).with_name("real_files.py")
pytest.importorskip("png", reason="needs pypng, of the test extra")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    image.save(tmp_path / "good.png")
    image.save(tmp_path / "notes.gif", comment="a word")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "good.png").read_bytes()[:900])
    return tmp_path


def run(folder: Path, script: Path, *options: str) -> tuple[int, list[str]]:
    result = subprocess.run([sys.executable, str(script), str(folder), *options], capture_output=True, text=True)
    assert not result.stderr, result.stderr
    return result.returncode, [line.removeprefix(f"{folder}/") for line in result.stdout.splitlines()]


def test_a_line_for_each_finding_and_a_total(folder):
    code, lines = run(folder, SCRIPT)
    assert code == 0, lines
    assert lines[:3] == [
        "cmyk.jpg: said: CMYK converted to RGB without a profile",
        "damaged.png: refused: FILE is damaged or truncated (image file is truncated). Replace it.",
        "",
    ]
    assert lines[3] == "4 files:"
    assert lines[-1] == "    2 whole"


def test_what_is_lost_is_found(folder):
    """A reader that drops what a file says, and one that changes a pixel."""
    script = folder.parent / f"{folder.name}.py"
    patch = (
        "import dataclasses, runpy, sys\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        f"sys.path.insert(0, {str(SCRIPT.parents[2])!r})\n"
        "import real_files\n"
        "whole = real_files.read_file\n"
        "def read(path, **options):\n"
        "    content = whole(path, **options)\n"
        "    frame = dataclasses.replace(content.frames[0], dpi=None)\n"
        "    if path.suffix == '.gif':\n"
        "        frame.color[3, 4] ^= 64\n"
        "    return dataclasses.replace(content, frames=[frame])\n"
        "real_files.read_file = read\n"
        "sys.exit(real_files.main())\n"
    )
    script.write_text(patch)
    with Image.open(folder / "good.png") as image:
        image.save(folder / "dots.png", dpi=(300, 300))
    code, lines = run(folder, script)
    assert code == 1
    assert "dots.png: lost: dpi in .png" in lines
    assert (
        "notes.gif: changed: colors of mode P, uint8" in lines
        or "notes.gif: changed: colors of mode RGB, uint8" in lines
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals: Linux")
def test_a_file_that_takes_too_long_is_left(folder):
    code, lines = run(folder, SCRIPT, "--seconds", "0.0001")
    assert code == 0
    assert "good.png: slow: more than 0.0001 seconds" in lines

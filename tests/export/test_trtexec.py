"""Every trtexec option that our pages name is in trtexec's own table, in TensorRT 10 and 11.

The table is a sample of github.com/NVIDIA/TensorRT, read from a clone of it: $TENSORRT_SOURCE, else ../TensorRT.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RELEASES = ["v10.15", "v10.16", "v11.0", "v11.1"]


def command_lines() -> list[str]:
    """Return the pages' trtexec commands, each in one line."""
    found: list[str] = []
    for page in PAGES:
        joined = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        found += [line for line in joined.splitlines() if line.startswith("trtexec ")]
    return found


def options_of(release: str) -> set[str]:
    """Return the options that the trtexec of a release reads."""
    source = Path(os.environ.get("TENSORRT_SOURCE") or REPOSITORY.parent / "TensorRT")
    table = subprocess.run(
        ["git", "-C", str(source), "show", f"{release}:samples/common/sampleOptions.cpp"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if table.returncode != 0:
        pytest.skip(f"no clone of NVIDIA/TensorRT with {release} ({source}; TENSORRT_SOURCE names another)")
    return set(re.findall(r"\(arguments, (?:\w+, )?\"(--\w+)\"", table.stdout))


def test_the_pages_name_trtexec() -> None:
    lines = command_lines()
    assert len(lines) >= 2
    for line in lines:  # the precision of the file, as `ignn build` keeps it
        assert "--stronglyTyped" in line
        assert "--noTF32" in line


@pytest.mark.parametrize("release", RELEASES)
def test_trtexec_knows_every_option(release: str) -> None:
    known = options_of(release)
    assert {"--onnx", "--saveEngine"} <= known
    assert "--fp13" not in known
    for line in command_lines():
        assert set(re.findall(r"--\w+", line)) - known == set(), line

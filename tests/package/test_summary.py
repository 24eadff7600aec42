"""The last line of a run says what was skipped, and knows every reason for which a test is skipped."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from skipped import REMEDIES, describe_skipped

TESTS = Path(__file__).resolve().parents[1]


def reasons() -> set[str]:
    """Return the reasons that stand in the tests as text."""
    found = set()
    for path in TESTS.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            values = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            if call.func.attr == "skip":
                values += call.args
            for value in values:
                parts = value.values if isinstance(value, ast.JoinedStr) else [value]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)
                if text.strip("*"):
                    found.add(text)
    return found


def test_every_reason_is_known() -> None:
    found = reasons()
    assert len(found) > 12
    assert not [text for text in found if not any(re.search(words, text) for words in REMEDIES)]


def test_skipped_tests_are_grouped() -> None:
    line = describe_skipped(["no CUDA device", "nvcc is not installed", "no CUDA device", "something"])
    assert line == (
        "4 skipped, which would run: 2 by a machine with an NVIDIA GPU; 1 by the CUDA toolkit; 1 by unknown (something)"
    )

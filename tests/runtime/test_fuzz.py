"""A few seconds of the fuzz command; CI runs a minute of it, a nightly run ten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="limits memory by the resource module")
def test_every_damaged_input_is_an_error_message_or_a_right_picture():
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "--seconds", "6"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "cases, each an error message or a right picture" in result.stdout

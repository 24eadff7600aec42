"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Some tests import ONNX Runtime themselves; the project's own import is runtime/backends/onnx_runtime.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The same examples on every machine, so that a failure is about the change; new ones: --hypothesis-profile=explore.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore")
settings.load_profile("repeatable")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data beside the checkout; the test is skipped by name where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("shared data is absent (expected ../shared with golden/ and data/)")
    return folder

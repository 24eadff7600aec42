"""Fixtures that every test may use, and the last line of a run: what was skipped, and what would bring it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings
from skipped import describe_skipped

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


@pytest.fixture(scope="session")
def golden_file() -> Callable[[str], Path]:
    """Return a function from a name to a file of the released code's recorded outputs.

    x2_60x60 is in the repository; a test of another is skipped by name where the shared data is absent.
    """

    def find(name: str) -> Path:
        for folder in (REPOSITORY / "tests" / "data", REPOSITORY.parent / "shared" / "golden"):
            if (folder / f"{name}.npz").is_file():
                return folder / f"{name}.npz"
        pytest.skip("shared data is absent (expected ../shared with golden/ and data/)")

    return find


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = [str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped]
        terminalreporter.write_line(describe_skipped(reasons))

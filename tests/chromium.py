"""Chromium for the tests of the pages; what is missing for it is skipped by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_MS = 300_000
"""The machine may be busy, and the network in WebAssembly is slow."""


@contextmanager
def chromium() -> Iterator[Callable[..., Any]]:
    """Give a function that starts Chromium with more flags, and ends at the end what it has started."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the test-ui extra")
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path  # of `playwright install chromium`
        names = ("chromium", "chromium-browser", "google-chrome")
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, names)), None)
        if found is None:
            pytest.skip("needs Chromium (playwright install chromium, or Debian: apt install chromium)")
        browsers = []

        def start(*flags: str) -> Any:
            browsers.append(driver.chromium.launch(executable_path=found, args=[*FLAGS, *flags]))
            return browsers[-1]

        yield start
        for browser in browsers:
            browser.close()

"""A served page and a browser to open it in; what is not at hand is skipped by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chromium import chromium
from places import PAGE, REPOSITORY


@pytest.fixture(scope="session")
def javascript() -> Callable[..., Any]:
    """Run lines of JavaScript in Node: `input` is what is given, the result is what they return; both are JSON."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node (Debian: apt install nodejs)")

    def run(lines: str, given: object = None, *, module: str) -> Any:
        program = (
            "import {readFileSync} from 'node:fs';"
            f"import * as m from {json.dumps((PAGE / module).as_uri())};"
            "const input = JSON.parse(readFileSync(0, 'utf8'));"
            f"const result = await (async () => {{ {lines} }})(); console.log(JSON.stringify(result));"
        )
        done = subprocess.run(
            [node, "--input-type=module", "-e", program], input=json.dumps(given), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def library() -> None:
    """onnxruntime-web, fetched into the page's folder."""
    if not (PAGE / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("needs onnxruntime-web (npm ci --ignore-scripts --prefix docs/demo)")


@pytest.fixture(scope="session")
def address(library: None) -> Iterator[str]:
    """Address of the page, served by `ignn demo`."""
    command = [sys.executable, "-m", "runtime.cli", "demo", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[0]
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")  # Playwright runs once at a time: the tests of `ignn ui` start it again
def launch() -> Iterator[Callable[..., Any]]:
    """Start Chromium with more flags."""
    with chromium() as start:
        yield start


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Any]) -> Any:
    """Chromium without a GPU."""
    return launch("--disable-gpu")

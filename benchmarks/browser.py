"""`python -m benchmarks.browser`: time of the page in docs/demo, in Chromium, against the native runtime.

A sample is what the user waits for: from a picture's pixels to its PNG file, with the model open. Both take turns, on
the same picture, with the same number of threads; one thread is what a browser gives a page that is not isolated.
Needs Playwright, Chromium and onnxruntime-web (docs/demo/README.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.results import REPOSITORY, Results, environment
from runtime.cli import run_command
from runtime.commands.measure import compare
from runtime.errors import BackendUnavailableError, UsageError

SAMPLE = REPOSITORY / "assets" / "sample.png"
OUTPUT = REPOSITORY / "docs" / "demo" / "time.json"
MODELS = ("ignn-s-x2", "edsr-s-x2")
PATIENCE_MS = 600_000


def native(model: str, threads: int) -> Callable[[], Any]:
    """Return a function that enlarges the sample by the native runtime, into a PNG file in memory."""
    from PIL import Image

    from runtime import SuperResolver

    resolver = SuperResolver(model, providers=["cpu"], threads=threads)
    image = Image.open(SAMPLE)
    image.load()

    def run() -> None:
        resolver(image).save(BytesIO(), "png")

    return run


def browser(model: str, threads: int) -> Callable[[], Any]:
    """Return a function that enlarges the sample on the page."""
    from playwright.sync_api import sync_playwright

    from export.demo import PAGE, make_server
    from runtime.models import find_model

    bundled = find_model(model)
    if threads == 1:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_NotIsolated, directory=str(REPOSITORY)))
    else:
        server = make_server(0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    driver = sync_playwright().start()
    own = driver.chromium.executable_path
    found = own if Path(own).exists() else shutil.which("chromium") or shutil.which("google-chrome")
    page = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"]).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"http://127.0.0.1:{server.server_port}{PAGE}")
    page.locator(f"input[name=kind][value={bundled.kind}]").check()
    page.locator(f"input[name=scale][value='{bundled.scale}']").check()
    done = 0

    def run() -> None:
        nonlocal done
        done += 1
        page.get_by_role("button", name="Try the sample").click()
        page.locator("#queue li.done").nth(done - 1).wait_for(state="attached")
        line = page.locator("#engine").inner_text()
        if f"{threads} thread" not in line:
            raise RuntimeError(f"{threads} threads were asked for; the page says: {line}")

    return run


class _NotIsolated(SimpleHTTPRequestHandler):
    """Serves the clone without the headers that isolate a page."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        """Say nothing of requests."""


def measure(model: str, threads: int, budget_s: float) -> dict[str, Any]:
    """Measure one model with that many threads."""
    arguments = {"model": model, "threads": threads}
    alternatives = {"native": (native, arguments), "browser": (browser, arguments)}
    return compare(alternatives, against="native", budget_s=budget_s)


def main() -> int:
    """Measure, write the JSON file, print a line a row; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browser", description=__doc__)
    parser.add_argument("--budget", type=float, default=30, help="seconds a row, after 3 rounds (default %(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file (default: docs/demo/time.json)")
    arguments = parser.parse_args()
    if arguments.output.is_dir():
        raise UsageError(f"Invalid --output ({arguments.output}). It is a folder; a JSON file is expected.")
    cores = len(os.sched_getaffinity(0))
    measured_on = environment(cores)
    results = Results(arguments.output, "browser", measured_on, fresh=True)
    libraries = ", ".join(f"{name} {version}" for name, version in measured_on["libraries"].items() if version)
    sys.stdout.write(f"On {measured_on['cpu']}, {cores} cores, {measured_on['system']}, {libraries}\n")
    for model in MODELS:
        for threads in sorted({1, cores}):
            load_average = os.getloadavg()
            measured = measure(model, threads, arguments.budget)
            if missing := measured.get("not_run"):
                raise BackendUnavailableError(f"It cannot run here: {missing}. docs/demo/README.md says what it needs.")
            results.add({"model": model, "threads": threads}, measured, load_average)
            ratio, seconds = measured["ratios"]["browser"], measured["alternatives"]["browser"]["wall_s"]["p50"]
            sys.stdout.write(
                f"{model}, {threads} thread{'s'[: threads > 1]}: {seconds:.2f} s in the browser, {ratio['wall']:.2f} x "
                f"native (rounds {ratio['wall_lowest_round']:.2f} to {ratio['wall_highest_round']:.2f}), load average "
                f"{load_average[0]:.1f}\n"
            )
    sys.stdout.write(f"-> {arguments.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.browser", main))

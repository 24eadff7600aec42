"""The page, in a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import SuperResolver, cli

pytest.importorskip("gradio", reason="needs the extra: pip install ignn[ui]")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright, of the test-ui extra")

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def address(x2_model: Path, model_file) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["ui", "--port", str(port), "--max-megapixels", "0.05", "--model", str(x2_model)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-m", "runtime.cli", *arguments, "--model", str(model_file(3))]
    process = subprocess.Popen(command, env=environment)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, "the page did not start"
            assert time.monotonic() < deadline, "the page does not answer"
            time.sleep(0.2)
    yield url
    process.terminate()
    process.wait(10)


@pytest.fixture
def page(address: str) -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(accept_downloads=True)
        page.set_default_timeout(60_000)
        page.goto(address)
        yield page
        browser.close()


def test_drop_enlarge_compare_download(page, x2_model, photograph, sample, tmp_path):
    page.locator("input[type=file]").first.set_input_files(str(sample))
    page.get_by_role("button", name="Enlarge").click()
    slider = page.locator("img[src*='after.png']").first
    slider.wait_for(state="visible")
    assert slider.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [450, 300]
    with page.expect_download() as download:
        page.locator("a[download]", has_text="").last.click()
    download.value.save_as(tmp_path / "result.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "result.png")), SuperResolver(x2_model)(photograph))


def test_the_scale_chooses_the_model(page, sample):
    page.get_by_label("x3").check()
    page.locator("input[type=file]").first.set_input_files(str(sample))
    playwright.expect(page.get_by_label("Model")).to_have_value("x3", timeout=60_000)
    page.get_by_role("button", name="Enlarge").click()
    after = page.locator("img[src*='after.png']").first
    after.wait_for(state="visible")
    assert after.evaluate("image => image.naturalWidth") == 675


def test_a_picture_above_the_limit_is_refused_with_a_message(page, tmp_path):
    Image.new("RGB", (300, 300)).save(tmp_path / "large.png")
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "large.png"))
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_text("the limit is 50,000").first.wait_for()
    assert str(tmp_path) not in page.content()


def test_a_port_that_is_taken(x2_model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = cli.main(["ui", "--port", str(taken.getsockname()[1]), "--model", str(x2_model)])
    assert code == 1
    assert "Try another --port" in capsys.readouterr().err

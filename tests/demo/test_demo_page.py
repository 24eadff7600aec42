"""The page in a real browser: its results are the command line's, and nobody outside is asked for anything."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import PATIENCE_MS
from PIL import Image
from places import PAGE, REPOSITORY, SOFTWARE_GPU

from runtime.backends.onnx_file import read_facts
from runtime.commands import upscale
from runtime.metadata import read_metadata
from runtime.models import bundled_models, find_model

SAMPLE = REPOSITORY / "assets" / "sample.png"


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page; the test fails if it asked another site, or broke its own policy."""
    contexts = []
    foreign: list[str] = []
    complaints: list[str] = []

    def open_page(query: str = "", *, browser: Any = browser, url: str = address, width: int = 1280) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
        contexts.append(context)
        origin = url.split("/docs/")[0]
        context.on(
            "request",
            lambda request: None if request.url.startswith((origin, "blob:")) else foreign.append(request.url),
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Security Policy" in line.text else None)
        page.goto(url + query)
        page.locator("input[name=scale]").first.wait_for(state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert foreign == []
    assert complaints == []


def choose(page: Any, kind: str, scale: int) -> None:
    page.locator(f"input[name=kind][value={kind}]").check()
    page.locator(f"input[name=scale][value='{scale}']").check()


def give(page: Any, *paths: Path) -> None:
    page.locator("#file").set_input_files([*map(str, paths)])


def row(page: Any, name: str) -> Any:
    return page.locator("#queue li").filter(has_text=name).last


def save(page: Any, name: str, target: Path) -> Image.Image:
    """Wait for a picture's result and save it."""
    link = row(page, name).get_by_role("link")
    link.or_(row(page, name).and_(page.locator(".failed"))).first.wait_for()
    assert link.count() == 1, row(page, name).inner_text()
    with page.expect_download() as download:
        link.click()
    download.value.save_as(target)
    return Image.open(target)


def of_command_line(source: Path, model: str, folder: Path) -> Image.Image:
    target = folder / f"expected_{source.stem}.png"
    assert upscale.main([str(source), "-o", str(target), "--model", model]) == 0
    return Image.open(target)


def difference(one: Image.Image, other: Image.Image) -> int:
    """Largest difference, in levels of 255; they have one mode and size."""
    assert (one.mode, one.size) == (other.mode, other.size)
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max())


def test_the_sample_is_the_command_lines(visit, tmp_path):
    page = visit()
    choose(page, "graph", 2)
    page.get_by_role("button", name="Try the sample").click()
    found = save(page, "sample.png", tmp_path / "found.png")
    assert difference(found, of_command_line(SAMPLE, "ignn-s-x2", tmp_path)) <= 1
    assert row(page, "sample.png").get_by_role("link").get_attribute("download") == "sample_x2.png"
    assert "WebAssembly" in page.locator("#engine").inner_text()
    assert page.evaluate("window.crossOriginIsolated")
    # What is shown is what is saved.
    shown = page.evaluate("document.getElementById('after').toDataURL().split(',')[1]")
    (tmp_path / "shown.png").write_bytes(base64.b64decode(shown))
    assert difference(Image.open(tmp_path / "shown.png").convert("RGB"), found) == 0


def test_tiles_of_the_graph_network_are_exact(visit, tmp_path):
    """450 x 32 pixels in memory for crops of 300 x 32: no tile cuts a search window."""
    photograph = np.asarray(Image.open(SAMPLE))[60:92]
    Image.fromarray(np.concatenate([photograph, photograph[:, ::-1]], axis=1)).save(tmp_path / "long.png")
    model = find_model("ignn-s-x2").checked_path()
    metadata = read_metadata(read_facts(model.read_bytes(), source="").properties, source="")
    page = visit(f"?memory={300 * 32 * metadata.bytes_per_pixel * 1.25 / 1e6}")
    choose(page, "graph", 2)
    give(page, tmp_path / "long.png")
    found = save(page, "long.png", tmp_path / "found.png")
    assert int(page.locator("#caption").inner_text().split(" pixels, ")[1].split(" tiles")[0]) > 2
    assert difference(found, of_command_line(tmp_path / "long.png", "ignn-s-x2", tmp_path)) <= 1


@pytest.mark.parametrize("scale", [3, 4])
def test_scales_and_the_fast_network_in_tiles(visit, tmp_path, scale):
    crop = tmp_path / "crop.png"
    Image.open(SAMPLE).crop((40, 30, 160, 100)).save(crop)
    model = next(model for model in bundled_models() if (model.kind, model.scale) == ("plain", scale))
    page = visit("?memory=60")
    choose(page, "plain", scale)
    give(page, crop)
    found = save(page, "crop.png", tmp_path / "found.png")
    assert " tiles" in page.locator("#caption").inner_text()
    assert difference(found, of_command_line(crop, model.name, tmp_path)) <= 1


def test_alpha_orientation_and_grey_as_on_the_command_line(visit, tmp_path):
    photograph = np.asarray(Image.open(SAMPLE))[40:90, 60:130]
    ramp = np.clip(np.add.outer(np.arange(50) * 6, np.arange(70) * 3) - 120, 0, 255).astype(np.uint8)
    hidden = np.where(ramp[..., None] == 0, 255, photograph).astype(np.uint8)  # white under full transparency
    Image.fromarray(np.dstack([hidden, ramp])).save(tmp_path / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.fromarray(photograph[..., 1])
    grey.save(tmp_path / "turned.jpg", quality=97, exif=exif)
    Image.merge("LA", [grey, Image.fromarray(ramp)]).save(tmp_path / "grey.png")
    page = visit()
    choose(page, "plain", 2)
    for name, mode, size in (
        ("alpha.png", "RGBA", (140, 100)),
        ("turned.jpg", "L", (100, 140)),
        ("grey.png", "LA", (140, 100)),
    ):
        give(page, tmp_path / name)
        found = save(page, name, tmp_path / f"found_{name}.png")
        assert (found.mode, found.size) == (mode, size)
        expected = of_command_line(tmp_path / name, "edsr-s-x2", tmp_path)
        if name == "turned.jpg":
            expected = Image.open(tmp_path / "expected_turned.png").convert("L")
        assert difference(found, expected) <= 1, name


def test_the_slider_by_keyboard_and_by_mouse(visit):
    page = visit()
    choose(page, "plain", 2)
    page.get_by_role("button", name="Try the sample").click()
    row(page, "sample.png").get_by_role("link").wait_for()
    slider = page.get_by_role("slider")
    slider.focus()
    divide = "getComputedStyle(document.getElementById('compare')).getPropertyValue('--divide').trim()"
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(divide) == "60%"
    assert slider.get_attribute("aria-valuetext") == "60% before, 40% after"
    page.keyboard.press("Home")
    assert page.evaluate(divide) == "0%"
    box = page.locator("#compare").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    assert 75 <= float(page.evaluate(divide).rstrip("%")) <= 85
    assert page.evaluate("getComputedStyle(document.getElementById('after')).clipPath").startswith("inset(0px 0px 0px")


def test_cancel_in_the_middle_and_the_queue_goes_on(visit, tmp_path):
    Image.open(SAMPLE).crop((0, 0, 24, 20)).save(tmp_path / "second.png")
    page = visit()
    choose(page, "graph", 4)
    give(page, SAMPLE)
    choose(page, "plain", 2)
    give(page, tmp_path / "second.png")
    page.get_by_text("Waiting").wait_for()
    row(page, "sample.png").get_by_text("Enlarging").wait_for()
    page.get_by_role("button", name="Cancel sample.png").click()
    row(page, "sample.png").get_by_text("Cancelled").wait_for(timeout=5_000)
    assert save(page, "second.png", tmp_path / "found.png").size == (48, 40)
    assert row(page, "sample.png").get_by_role("link").count() == 0


def test_bad_files_get_a_message_and_the_page_goes_on(visit, tmp_path):
    whole = SAMPLE.read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (4200, 4100)).save(tmp_path / "large.png")
    Image.open(SAMPLE).crop((0, 0, 20, 20)).save(tmp_path / "good.png")
    page = visit()
    choose(page, "plain", 2)
    names = ("empty.png", "text.png", "truncated.png", "large.png", "good.png")
    give(page, *(tmp_path / name for name in names))
    save(page, "good.png", tmp_path / "found.png")
    for name, message in zip(
        names, ("is empty", "damaged, or no picture", "damaged, or no picture", "the limit in a browser"), strict=False
    ):
        assert message in row(page, name).inner_text(), name
    assert row(page, "large.png").get_by_role("button").count() == 0


def test_twelve_megapixels_are_tiled_and_the_page_stays_awake(visit, tmp_path):
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    small.resize((4000, 3000)).save(tmp_path / "twelve.jpg")
    page = visit("?memory=100")
    choose(page, "plain", 4)
    page.evaluate(
        """() => {
          window.gap = 0;
          let last = performance.now();
          setInterval(() => {
            const now = performance.now();
            window.gap = Math.max(window.gap, now - last);
            last = now;
          }, 20);
        }"""
    )
    give(page, tmp_path / "twelve.jpg")
    row(page, "twelve.jpg").get_by_text("tile 2 of").wait_for()
    assert "Shown reduced 4 times" in page.locator("#caption").inner_text()
    assert "left" in page.locator("#left").inner_text()
    assert page.evaluate("window.gap") < 2_000  # ms
    page.get_by_role("button", name="Cancel twelve.jpg").click()
    row(page, "twelve.jpg").get_by_text("Cancelled").wait_for(timeout=5_000)


@pytest.mark.parametrize("largest_crop", [11_000, 10])
def test_memory_that_runs_out(visit, tmp_path, largest_crop):
    """The picture begins again with smaller tiles; where none is small enough, a message says so."""

    def change(name: str, old: str, new: str) -> None:
        source = (PAGE / name).read_text()
        assert old in source
        page.context.route(
            f"**/{name}", lambda route: route.fulfill(response=route.fetch(), body=source.replace(old, new))
        )

    Image.open(SAMPLE).crop((0, 0, 120, 100)).save(tmp_path / "crop.png")
    page = visit("?memory=80")  # for a crop of 13,333 pixels
    start = "const input = new ort.Tensor("
    change("engine.js", start, f"if (height * width > {largest_crop}) throw new Error('std::bad_alloc'); {start}")
    change("page.js", "least: 300", "least: 10")
    page.reload()
    choose(page, "plain", 2)
    give(page, tmp_path / "crop.png")
    if largest_crop == 10:
        row(page, "crop.png").get_by_text("There is not enough memory for one tile").wait_for()
        return
    found = save(page, "crop.png", tmp_path / "found.png")
    assert " tiles" in page.locator("#caption").inner_text()
    assert difference(found, of_command_line(tmp_path / "crop.png", "edsr-s-x2", tmp_path)) <= 1


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_pictures_are_pasted_and_dropped(visit, tmp_path, kind):
    Image.open(SAMPLE).crop((0, 0, 20, 16)).save(tmp_path / "small.png")
    page = visit()
    choose(page, "plain", 2)
    page.evaluate(
        """([kind, text]) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          data.items.add(new File([bytes], "small.png", { type: "image/png" }));
          const options = { bubbles: true, cancelable: true };
          document.body.dispatchEvent(kind === "paste"
            ? new ClipboardEvent("paste", { ...options, clipboardData: data })
            : new DragEvent("drop", { ...options, dataTransfer: data }));
        }""",
        [kind, base64.b64encode((tmp_path / "small.png").read_bytes()).decode()],
    )
    assert save(page, "small.png", tmp_path / "found.png").size == (40, 32)


@pytest.mark.parametrize("width", [390, 1280])
def test_how_it_looks(visit, tmp_path, width):
    """Nothing is wider than the screen, everything has a name; the pictures are for people to look at."""
    page = visit(width=width)
    choose(page, "plain", 2)
    page.screenshot(path=tmp_path / f"empty_{width}.png", full_page=True)
    page.get_by_role("button", name="Try the sample").click()
    row(page, "sample.png").get_by_role("link").wait_for()
    page.screenshot(path=tmp_path / f"done_{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for role, name in (
        ("heading", "Enlarge a picture"),
        ("radio", "\u00d72"),
        ("slider", "Divide between before, at the left, and after, at the right"),
        ("link", "Save sample_x2.png"),
        ("img", "After: enlarged by the network"),
        ("status", ""),
    ):
        assert page.get_by_role(role, name=name).count() >= 1, role
    assert page.get_by_label("Choose a picture").get_attribute("type") == "file"
    assert "sample.png: Done" in page.get_by_role("status").inner_text()


def test_one_thread_where_the_page_is_not_isolated(visit, library, tmp_path):
    """Any server of the clone will do; the browser then gives one thread, and the page says so."""
    Image.open(SAMPLE).crop((0, 0, 20, 16)).save(tmp_path / "small.png")
    handler = partial(_Quiet, directory=str(REPOSITORY))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = visit(url=f"http://127.0.0.1:{server.server_port}/docs/demo/")
        choose(page, "plain", 2)
        give(page, tmp_path / "small.png")
        assert save(page, "small.png", tmp_path / "found.png").size == (40, 32)
        assert "1 thread: this page is not served by `ignn demo`" in page.locator("#engine").inner_text()
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        """Say nothing of requests."""


@pytest.mark.parametrize("agrees", [True, False])
def test_webgpu_is_used_if_it_agrees(launch, visit, tmp_path, agrees):
    """By a GPU in software; where its first tile does not agree, WebAssembly runs, and the page says why."""
    Image.open(SAMPLE).crop((90, 50, 102, 60)).save(tmp_path / "small.png")
    browser = launch(*SOFTWARE_GPU)
    page = visit(browser=browser)
    if not page.evaluate("navigator.gpu && navigator.gpu.requestAdapter().then((adapter) => adapter !== null)"):
        pytest.skip("this Chromium has no GPU in software")
    if not agrees:
        source = (PAGE / "engine.js").read_text()
        assert "TOLERANCE = 0.5" in source
        body = source.replace("TOLERANCE = 0.5", "TOLERANCE = -1")
        page.context.route("**/engine.js", lambda route: route.fulfill(response=route.fetch(), body=body))
    choose(page, "plain", 2)
    give(page, tmp_path / "small.png")
    found = save(page, "small.png", tmp_path / "found.png")
    line = page.locator("#engine").inner_text()
    assert ("Runs on the GPU by WebGPU" if agrees else "WebGPU is not used: its first tile differs") in line
    assert difference(found, of_command_line(tmp_path / "small.png", "edsr-s-x2", tmp_path)) <= 1

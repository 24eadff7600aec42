"""The page: what it does with an upload, what it refuses, and how it looks in a real browser.

What is behind the page is tested without Gradio; the limits of upload and queue need Gradio, the page itself a browser.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from chromium import PATIENCE_MS, chromium
from PIL import Image

from runtime import SuperResolver, cli, errors
from runtime.clone import install_command
from runtime.commands import graph_view, ui
from runtime.models import bundled_models

REPOSITORY = Path(__file__).resolve().parents[2]
GRADIO = f"needs Gradio: {install_command('ui')}"


def test_what_is_behind_the_page(x2_model, model_file, photograph, sample, tmp_path):
    models = ui.Models([x2_model, model_file(3)])
    assert models.of_scale(3) == ["x3", *(model.name for model in bundled_models() if model.scale == 3)]
    assert set(models.scales) == {"x2", "x3", *(model.name for model in bundled_models())}
    before, after, download = ui.upscale(models, str(sample), "x2", tmp_path, 1_000_000)
    assert np.array_equal(np.asarray(Image.open(download)), SuperResolver(x2_model)(photograph))
    assert np.array_equal(np.asarray(Image.open(after)), np.asarray(Image.open(download)))
    bicubic = Image.fromarray(photograph).resize((450, 300), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(before)), np.asarray(bicubic))
    assert Path(download).name == "sample_x2.png"
    again = ui.upscale(models, str(sample), "x3", tmp_path, 1_000_000)
    assert not {before, after, download} & set(again)  # visitors do not meet


def test_all_frames_and_alpha_are_in_the_download(x2_model, tmp_path):
    frames = [Image.new("RGBA", (20, 16), (level, 0, 0, 128)) for level in (0, 100, 200)]
    frames[0].save(tmp_path / "in.png", save_all=True, append_images=frames[1:], duration=50)
    *_, download = ui.upscale(ui.Models([x2_model]), str(tmp_path / "in.png"), "x2", tmp_path, 10_000)
    result = Image.open(download)
    assert (result.n_frames, result.mode, result.size) == (3, "RGBA", (40, 32))  # type: ignore[attr-defined]


def test_uploads_that_are_refused(x2_model, sample, tmp_path):
    models = ui.Models([x2_model])
    (tmp_path / "text.png").write_text("hello")
    for path, limit, kind, message in (
        (None, 10**6, errors.UsageError, "Drop a picture first"),
        (str(sample), 33_749, errors.ImageTooLargeError, "This page takes up to 0.033749 megapixels"),
        (str(tmp_path / "text.png"), 10**6, errors.ImageReadError, "not an image"),
    ):
        with pytest.raises(kind, match=message):
            ui.upscale(models, path, "x2", tmp_path, limit)
    with pytest.raises(errors.ModelNotFoundError):
        ui.upscale(models, str(sample), "nonesuch", tmp_path, 10**6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.png"]


@pytest.mark.parametrize(
    ("size", "point", "model", "shown"),
    [
        ((600, 400), (400, 100), "edsr-s-x2", "ignn-s-x2"),
        ((600, 400), (400, 100), "ignn-e-x2", "ignn-e-x2"),
        ((40, 30), (39, 29), "ignn-s-x3", "ignn-s-x3"),
    ],
)
def test_a_click_shows_what_the_graph_finds(size, point, model, shown, photograph, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    commands = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **more: commands.append(command) or run(command, **more))
    Image.fromarray(np.tile(photograph, (3, 3, 1))).crop((0, 0, *size)).save(tmp_path / "in.png")
    with ui.Models([]) as models:
        sheet = ui.neighbors(models, str(tmp_path / "in.png"), point, model, tmp_path, 10**6)
    assert [Path(command[-1]).name for command in commands] == [f"{shown}.pt"]
    assert Image.open(sheet).width > 300
    assert [path.name for path in Path(sheet).parent.iterdir()] == ["neighbors.png"]


def test_a_click_that_fails_says_why(photograph, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    with pytest.raises(errors.IgnnError, match=r"cannot be drawn: ignn neighbors: error: .*ignn-s-x7\.pt"):
        graph_view.draw_neighbors(photograph, 5, 5, "mine", 7, tmp_path)
    monkeypatch.setattr(graph_view, "find_clone", lambda: None)
    assert not graph_view.can_show()


@pytest.mark.parametrize("name", ["a.tif", "deep.png", "a.webp", "a.gif"])
def test_a_preview_of_any_format(photograph, tmp_path, name):
    if name == "deep.png":
        Image.fromarray(photograph[..., 1].astype(np.uint16) * 257).save(tmp_path / name)
    else:
        Image.fromarray(np.tile(photograph, (6, 6, 1))).save(tmp_path / name)
    shown = ui.preview(str(tmp_path / name), tmp_path, 10**7)
    image = Image.open(shown)
    assert image.format == "PNG"
    assert max(image.size) <= ui.PREVIEW_SIDE
    assert abs(np.asarray(image.convert("L"), float).mean() - photograph.mean()) < 15
    assert ui.preview(None, tmp_path, 10**7) is None


def test_uploads_and_results_are_kept_for_a_limited_time(tmp_path):
    for name in ("uploads/a/old.png", "uploads/b/new.png", "results/c/old.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        if "old" in name:
            for path in (tmp_path / name, (tmp_path / name).parent):
                os.utime(path, (time.time() - 7200,) * 2)
    ui.remove_old(tmp_path, 3600)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == ["uploads/b/new.png"]
    assert (tmp_path / "results").is_dir()


def test_ports_that_cannot_be(x2_model, capsys):
    pytest.importorskip("gradio", reason=GRADIO)
    for port in ("-1", "65536", "99999999"):
        assert cli.main(["ui", "--port", port, "--model", str(x2_model)]) == 1
        assert "Supported values are 0 to 65535" in capsys.readouterr().err


def test_without_gradio(x2_model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["ui", "--model", str(x2_model)]) == 1
    assert install_command("ui") in capsys.readouterr().err
    assert cli.main(["ui", "--max-megapixels", "0"]) == 1
    assert "A number above 0, below a million" in capsys.readouterr().err


@contextmanager
def served(folder: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the page, at any port that is free, with `folder` as the system's folder of temporary files."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "runtime.cli", "ui", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[0], process
    finally:
        process.terminate()
        process.wait(30)


def test_what_the_page_counts(x2_model, sample, tmp_path):
    pytest.importorskip("prometheus_client", reason=GRADIO)
    with ui.served_metrics(port := ui._free_port("127.0.0.1"), "ui") as metrics:
        ui.upscale(ui.Models([x2_model]), str(sample), "x2", tmp_path, 1_000_000, metrics)
        metrics.failed("UsageError")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            text = response.read().decode()
    width, height = Image.open(sample).size
    for line in (
        "ignn_images_total 1.0",
        f"ignn_output_pixels_total {4.0 * width * height}",
        "ignn_tiles_total 1.0",
        'ignn_stage_seconds_total{stage="encode"}',
        'ignn_errors_total{kind="UsageError"} 1.0',
    ):
        assert line in text
    assert cli.main(["ui", "--metrics-port", "99999"]) == 1


@pytest.fixture(scope="session")
def address(x2_model: Path, model_file, tmp_path_factory) -> Iterator[str]:
    pytest.importorskip("gradio", reason=GRADIO)
    models = ("--model", x2_model, "--model", model_file(3))
    with served(tmp_path_factory.mktemp("page"), "--max-megapixels", "0.05", *models) as (url, _):
        yield url


def upload(address: str, data: bytes) -> int:
    """Send a file to the page; returns what it answers."""
    border = "----ignn"
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
    header = {"Content-Type": f"multipart/form-data; boundary={border}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{address}/gradio_api/upload", body, header)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_behind(x2_model, sample, tmp_path, number):
    """While the page is served, nobody else can look into its folder; after a clean stop it is gone."""
    pytest.importorskip("gradio", reason=GRADIO)
    with served(tmp_path, "--model", x2_model) as (url, process):
        assert upload(url, sample.read_bytes()) == 200
        (folder,) = tmp_path.glob("ignn-ui-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert [path for path in tmp_path.rglob("a.png") if folder in path.parents]
        process.send_signal(number)
        assert process.wait(30) == 0
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.glob("ignn-ui-*"))


def test_other_names_of_this_machine_are_not_answered(address):
    """A site whose name is made to lead to 127.0.0.1 would send its own name."""

    def status(host: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers={"Host": host})) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    port = address.rsplit(":", 1)[1]
    assert status(f"127.0.0.1:{port}") == status(f"localhost:{port}") == 200
    assert status("evil.example") == status(f"evil.example:{port}") == 400


def test_the_api_has_all_scales(address, sample):
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    for model in ("x2", "x3", *(model.name for model in bundled_models() if model.scale == 4)):
        _, download = client.predict(handle_file(str(sample)), model, api_name="/run")
        scale = 4 if model.endswith("x4") else int(model[-1])
        assert Image.open(download).size == (225 * scale, 150 * scale)


def test_a_file_above_the_limit_is_not_taken(address):
    """25 MB is taken, and no more, by the server itself."""
    assert upload(address, b"\0" * (ui.MAX_UPLOAD_MB - 2 << 20)) == 200
    assert upload(address, b"\0" * (ui.MAX_UPLOAD_MB + 2 << 20)) == 413


def test_a_full_queue_sends_visitors_away(x2_model, sample, tmp_path, monkeypatch):
    """One is served and `MAX_QUEUE` wait, here until all have come; those after them are told."""
    pytest.importorskip("gradio", reason=GRADIO)
    from gradio_client import Client, handle_file

    models, served, gate = ui.Models([x2_model]), threading.Event(), threading.Event()
    enlarge = models["x2"].upscale_file

    def wait(content, **options):
        served.set()
        gate.wait(120)
        return enlarge(content, **options)

    monkeypatch.setattr(models["x2"], "upscale_file", wait)
    page = ui.build_page(models, tmp_path, 10**6)
    try:
        url = ui.launch(page, tmp_path, "127.0.0.1", ui._free_port("127.0.0.1"))
        client = Client(url, verbose=False)
        submit = partial(client.submit, handle_file(str(sample)), "x2", api_name="/run")
        jobs = [submit()]
        assert served.wait(60)
        jobs += [submit() for _ in range(ui.MAX_QUEUE + 4)]
        deadline = time.monotonic() + 60
        while sum(job.done() for job in jobs) < 4:
            assert time.monotonic() < deadline, "nobody is sent away"
            time.sleep(0.05)
        gate.set()
        failures = [str(error) for job in jobs if (error := job.exception(60)) is not None]
    finally:
        gate.set()
        page.close()
    assert len(failures) == 4
    assert all("full" in failure for failure in failures)


def test_a_click_on_the_preview(x2_model, photograph, tmp_path, monkeypatch):
    """Its place in the picture, whatever size the preview is shown at, goes to `ignn neighbors`."""
    pytest.importorskip("gradio", reason=GRADIO)
    asked = []

    def draw(rgb, x, y, model, scale, folder):
        asked.append((rgb.shape, x, y, model, scale))
        Image.new("RGB", (321, 50)).save(folder / "neighbors.png")
        return folder / "neighbors.png"

    monkeypatch.setattr(ui, "can_show", lambda: True)
    monkeypatch.setattr(ui, "draw_neighbors", draw)
    Image.fromarray(np.tile(photograph, (6, 4, 1))).save(tmp_path / "in.png")
    page = ui.build_page(ui.Models([x2_model]), tmp_path, 10**6)
    try:
        url = ui.launch(page, tmp_path, "127.0.0.1", ui._free_port("127.0.0.1"))
        with chromium() as start:
            tab = start().new_page()
            tab.set_default_timeout(PATIENCE_MS)
            tab.goto(url)
            tab.locator("input[type=file]").first.set_input_files(str(tmp_path / "in.png"))
            preview = tab.locator("img[src*='preview.png']").first
            preview.wait_for(state="visible")
            box = preview.bounding_box()
            preview.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.25})
            found = tab.locator("img[src*='neighbors.png']").first
            found.wait_for(state="visible")
            assert found.evaluate("image => image.naturalWidth") == 321
    finally:
        page.close()
    ((shape, x, y, model, scale),) = asked
    assert (shape, model, scale) == ((900, 900, 3), x2_model.stem, 2)
    assert (x, y) == (pytest.approx(675, abs=10), pytest.approx(225, abs=10))


@pytest.fixture
def page(address: str) -> Iterator[object]:
    with chromium() as start:
        page = start().new_page(accept_downloads=True)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        yield page


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
    from playwright.sync_api import expect

    expect(page.get_by_label("Model")).to_have_value("x3", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Enlarge").click()
    after = page.locator("img[src*='after.png']").first
    after.wait_for(state="visible")
    assert after.evaluate("image => image.naturalWidth") == 675


def test_the_limits_are_told_before_and_after(page, tmp_path):
    page.get_by_text("up to 0.05 megapixels and 25 MB").first.wait_for()
    page.get_by_text("kept for 60 minutes").first.wait_for()
    Image.new("RGB", (300, 300)).save(tmp_path / "large.png")
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "large.png"))
    page.get_by_text("This page takes up to 0.05 megapixels").first.wait_for()
    assert str(tmp_path) not in page.content()


def test_a_damaged_picture_is_told_with_its_reason(page, sample, tmp_path):
    (tmp_path / "cut.png").write_bytes(sample.read_bytes()[:20000])
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "cut.png"))
    page.get_by_text("The picture is damaged or truncated").first.wait_for()


def test_a_tiff_has_a_preview(page, photograph, tmp_path):
    Image.fromarray(photograph).save(tmp_path / "a.tif")
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "a.tif"))
    shown = page.locator("img[src*='preview.png']").first
    shown.wait_for(state="visible")
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [225, 150]


def test_a_port_that_is_taken(x2_model, capsys):
    pytest.importorskip("gradio", reason=GRADIO)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = cli.main(["ui", "--port", str(taken.getsockname()[1]), "--model", str(x2_model)])
    assert code == 1
    assert "Try another --port" in capsys.readouterr().err

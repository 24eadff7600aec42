"""`ignn ui`: serve a page where a picture is dropped, shown before and after, and downloaded."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from ..atomic import shortened
from ..clone import install_command
from ..errors import BackendUnavailableError, ImageTooLargeError, ModelNotFoundError, UsageError, explain
from ..models import bundled_models
from ..pictures.read import ImageFile, read_file
from ..pictures.write import write_file
from ..serving.metrics import Metrics, Stopwatch, served_metrics
from ..super_resolver import SuperResolver
from .compare import bicubic, entry
from .graph_view import can_show, draw_neighbors
from .interrupt import interrupted_by_sigterm

MAX_MEGAPIXELS, MAX_UPLOAD_MB, MAX_QUEUE, KEEP_MINUTES = 4.0, 25, 8, 60
"""Largest picture, largest file, most visitors who wait, how long uploads and results are kept."""

PREVIEW_SIDE = 512
"""Longer side of the picture that shows what was uploaded."""

LOOPBACK = "127.0.0.1"


class Models:
    """The models that the page offers, by label; each is opened when first used."""

    def __init__(self, paths: list[Path]) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, SuperResolver] = {}
        self.scales: dict[str, int] = {}
        for path in paths:
            resolver = SuperResolver(path)
            self._open[path.stem] = resolver
            self.scales[path.stem] = resolver.scale
        for model in bundled_models():
            self.scales.setdefault(model.name, model.scale)
        if not self.scales:
            raise ModelNotFoundError("No model is bundled. Make one with `ignn export`, and give it with --model.")

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        for resolver in self._open.values():
            resolver.network.backend.cancel()  # Ctrl-C need not wait for a visitor's picture
            resolver.close()

    def of_scale(self, scale: int) -> list[str]:
        """Return the labels of the models of that scale."""
        return [label for label, own in self.scales.items() if own == scale]

    def __getitem__(self, label: str) -> SuperResolver:
        with self._lock:
            if label not in self._open:
                self._open[label] = SuperResolver(label)
            return self._open[label]


def upscale(
    models: Models, path: str | None, label: str, folder: Path, max_pixels: int, metrics: Metrics | None = None
) -> tuple[str, str, str]:
    """Enlarge an uploaded file; return the paths of the picture before (bicubic), after, and for download.

    Raises:
        IgnnError: what is to be told to the visitor.
    """
    watch = Stopwatch()
    with watch.stage("decode"):
        small = _read(path, max_pixels)
    resolver = models[label]
    with watch.stage("network"):
        large = resolver.upscale_file(small, tile_done=watch.tile_done)
    after = entry("after", large.frames[0])
    before = bicubic("before", small.frames[0], (after.rgb.shape[1], after.rgb.shape[0]))
    place = Path(tempfile.mkdtemp(dir=folder))
    Image.fromarray(before.rgb).save(place / "before.png")
    Image.fromarray(after.rgb).save(place / "after.png")
    result = place / f"{shortened(Path(str(path)).stem)}_x{resolver.scale}.png"
    with watch.stage("encode"):
        write_file(large, result)
    if metrics is not None:
        metrics.enlarged(sum(frame.color.shape[0] * frame.color.shape[1] for frame in large.frames), watch)
    return str(place / "before.png"), str(place / "after.png"), str(result)


def preview(path: str | None, folder: Path, max_pixels: int) -> str | None:
    """Return the path of a small PNG of an uploaded file, whatever its format; errors as in `upscale`."""
    if path is None:
        return None
    place = Path(tempfile.mkdtemp(dir=folder)) / "preview.png"
    _thumbnail(_rgb(path, max_pixels)).save(place)
    return str(place)


def neighbors(
    models: Models, path: str | None, point: tuple[int, int], label: str, folder: Path, max_pixels: int
) -> str:
    """Return the path of a drawing of what a model's graph finds for a point of the preview, (column, row).

    Raises:
        IgnnError: what is to be told to the visitor.
    """
    rgb = _rgb(path, max_pixels)
    x, y = (
        min(int((at + 0.5) * whole / shown), whole - 1)
        for at, whole, shown in zip(point, (rgb.shape[1], rgb.shape[0]), _thumbnail(rgb).size, strict=True)
    )
    return str(draw_neighbors(rgb, x, y, label, models.scales[label], folder))


def _rgb(path: str | None, max_pixels: int) -> NDArray[Any]:
    """Return the first frame of an uploaded file as (H, W, 3) uint8."""
    return entry("preview", _read(path, max_pixels).frames[0]).rgb


def _thumbnail(rgb: NDArray[Any]) -> Image.Image:
    image = Image.fromarray(rgb)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return image


def _read(path: str | None, max_pixels: int) -> ImageFile:
    if path is None:
        raise UsageError("Drop a picture first.")
    try:
        return read_file(Path(path), max_pixels=max_pixels)
    except ImageTooLargeError as error:
        raise ImageTooLargeError(
            f"The picture is too large. This page takes up to {max_pixels / 1e6:g} megapixels, of all frames together; "
            "`ignn upscale` takes more."
        ) from error


def remove_old(folder: Path, seconds: float) -> None:
    """Remove files below a folder that were last written so many seconds ago, and the folders that are empty then."""
    oldest = time.time() - seconds
    for place, _, names in os.walk(folder, topdown=False):
        for file in (Path(place, name) for name in names):
            with contextlib.suppress(OSError):  # another thread may have removed it
                if file.stat().st_mtime < oldest:
                    file.unlink()
        if Path(place) != folder and Path(place).stat().st_mtime < oldest:
            with contextlib.suppress(OSError):  # it is not empty
                Path(place).rmdir()


def build_page(models: Models, folder: Path, max_pixels: int, metrics: Metrics | None = None) -> Any:  # noqa: ANN401 - Gradio is an extra
    """Return the page, which is not served yet; uploads and results go below `folder`."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")  # read when the page is built
    gradio = _gradio()
    scales = sorted(set(models.scales.values()))
    results = folder / "results"
    results.mkdir(exist_ok=True)
    shows_neighbors = can_show()

    @contextlib.contextmanager
    def told(path: str | None) -> Iterator[None]:
        """Tell the visitor of an error, but not the upload's place on the server, which is nobody's business."""
        try:
            yield
        except Exception as error:
            if metrics is not None:
                metrics.failed(type(error).__name__)
            text = explain(error).replace(str(path), "The picture")
            raise gradio.Error(text, print_exception=False) from error

    def run(path: str | None, label: str) -> tuple[tuple[str, str], str]:
        with told(path):
            before, after, result = upscale(models, path, label, results, max_pixels, metrics)
            return (before, after), result

    def show(path: str | None) -> str | None:
        with told(path):
            return preview(path, results, max_pixels)

    def find(path: str | None, label: str, place: gradio.SelectData) -> str:  # type: ignore[name-defined]
        with told(path):
            column, row = place.index
            return neighbors(models, path, (column, row), label, results, max_pixels)

    # Gradio reads what is written there, which as text it would look for among this module's names.
    find.__annotations__["place"] = gradio.SelectData

    def choose(scale: int) -> Any:  # noqa: ANN401
        return gradio.Dropdown(models.of_scale(scale), value=models.of_scale(scale)[0])

    with gradio.Blocks(title="IGNN", analytics_enabled=False) as page:
        gradio.Markdown("## IGNN: enlarge a picture")
        with gradio.Row():
            with gradio.Column(scale=1):
                limits = f"up to {max_pixels / 1e6:g} megapixels and {MAX_UPLOAD_MB} MB"
                picture = gradio.File(label=f"Picture, {limits}", type="filepath", height=140)
                shown = gradio.Image(label="Preview", interactive=False, buttons=[], height=240)
                scale = gradio.Radio([(f"x{s}", s) for s in scales], value=scales[0], label="Scale")
                # All models, for those who call it by its API; a visitor sees those of the scale.
                model = gradio.Dropdown(list(models.scales), value=models.of_scale(scales[0])[0], label="Model")
                button = gradio.Button("Enlarge", variant="primary")
            with gradio.Column(scale=2):
                slider = gradio.ImageSlider(label="Bicubic | IGNN", interactive=False)
                download = gradio.File(label=f"Download, kept for {KEEP_MINUTES} minutes")
                found = gradio.Image(
                    label="What the graph finds: click the preview", interactive=False, visible=shows_neighbors
                )
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        page.load(choose, scale, model, **quiet)
        scale.change(choose, scale, model, **quiet)
        picture.change(show, picture, shown, **quiet)
        if shows_neighbors:
            shown.select(find, [picture, model], found, concurrency_limit=1, api_visibility="private")
        button.click(run, [picture, model], [slider, download], concurrency_limit=1)
    return page.queue(max_size=MAX_QUEUE)


def main(argv: list[str]) -> int:
    """Run `ignn ui`; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ignn ui", description="Serve a page that enlarges pictures, on this machine."
    )
    parser.add_argument(
        "--model", type=Path, action="append", default=[], help=".onnx file to offer beside the bundled"
    )
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port (default %(default)s); 0: any that is free")
    parser.add_argument(
        "--max-megapixels", type=float, default=MAX_MEGAPIXELS, help="largest picture taken (default %(default)s)"
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve metrics for Prometheus on this machine")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.max_megapixels < 1e6:
        raise UsageError(
            f"Invalid --max-megapixels ({arguments.max_megapixels}). A number above 0, below a million, is expected."
        )
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"Invalid --port ({arguments.port}). Supported values are 0 to 65535.")
    # No other user of the machine can look into such a folder.
    with (
        tempfile.TemporaryDirectory(prefix="ignn-ui-") as name,
        Models(arguments.model) as models,
        served_metrics(arguments.metrics_port, "ui") as metrics,
    ):
        page = build_page(models, Path(name), int(arguments.max_megapixels * 1e6), metrics)
        port = arguments.port or _free_port(arguments.host)
        try:
            launch(page, Path(name), arguments.host, port)
        except OSError as error:
            raise UsageError(f"Cannot listen on {arguments.host}:{port} ({error}). Try another --port.") from error
        sys.stdout.write(f"http://{arguments.host}:{port}  (stop with Ctrl-C)\n")
        sys.stdout.flush()
        try:
            with interrupted_by_sigterm():
                while True:
                    time.sleep(60)
                    remove_old(Path(name), KEEP_MINUTES * 60)
        except KeyboardInterrupt:
            return 0
        finally:
            page.close(verbose=False)


def launch(page: Any, folder: Path, host: str, port: int) -> str:  # noqa: ANN401
    """Serve a page of `build_page`; return its address.

    On this machine alone it answers to this machine's own names: a site whose name leads here, opened in the same
    browser, cannot use it.

    Raises:
        OSError: it cannot listen there.
    """
    gradio = _gradio()
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    names = [LOOPBACK, "localhost"] if host in (LOOPBACK, "localhost") else ["*"]
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{MAX_UPLOAD_MB}mb",
        allowed_paths=[str(folder / "results")],
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=names)]},
        prevent_thread_lock=True,
        quiet=True,
        # The default theme loads its fonts from another site.
        theme=gradio.themes.Base(font=["sans-serif"], font_mono=["monospace"]),
    )
    return str(address)


def _free_port(host: str) -> int:
    try:
        with socket.create_server((host, 0)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise UsageError(f"Cannot listen on {host} ({error}). Try another --host.") from error


def _gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise BackendUnavailableError(
            f"The page needs Gradio, which cannot be loaded ({error}). Install it with: {install_command('ui')}"
        ) from error
    return gradio

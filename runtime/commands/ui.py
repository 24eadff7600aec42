"""`ignn ui`: serve a page where a picture is dropped, shown before and after, and downloaded."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ..clone import install_command
from ..errors import BackendUnavailableError, IgnnError, ModelNotFoundError, UsageError
from ..models import bundled_models
from ..pictures.read import read_file
from ..pictures.write import write_file
from ..super_resolver import SuperResolver
from .compare import bicubic, entry

MAX_MEGAPIXELS, MAX_UPLOAD_MB, MAX_QUEUE = 4.0, 25, 8
"""Largest picture, largest file, most visitors who wait."""


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
            resolver.close()

    def of_scale(self, scale: int) -> list[str]:
        """Return the labels of the models of that scale."""
        return [label for label, own in self.scales.items() if own == scale]

    def __getitem__(self, label: str) -> SuperResolver:
        with self._lock:
            if label not in self._open:
                self._open[label] = SuperResolver(label)
            return self._open[label]


def upscale(models: Models, path: str | None, label: str, folder: Path, max_pixels: int) -> tuple[str, str, str]:
    """Enlarge an uploaded file; return the paths of the picture before (bicubic), after, and for download.

    Raises:
        IgnnError: what is to be told to the visitor.
    """
    if path is None:
        raise UsageError("Drop a picture first.")
    resolver = models[label]
    small = read_file(Path(path), max_pixels=max_pixels)
    large = resolver.upscale_file(small)
    after = entry("after", large.frames[0])
    before = bicubic("before", small.frames[0], (after.rgb.shape[1], after.rgb.shape[0]))
    place = Path(tempfile.mkdtemp(dir=folder))
    Image.fromarray(before.rgb).save(place / "before.png")
    Image.fromarray(after.rgb).save(place / "after.png")
    result = place / f"{Path(path).stem[:80]}_x{resolver.scale}.png"
    write_file(large, result)
    return str(place / "before.png"), str(place / "after.png"), str(result)


def build_page(models: Models, folder: Path, max_pixels: int) -> Any:  # noqa: ANN401 - Gradio is an extra
    """Return the page, which is not served yet."""
    gradio = _gradio()
    scales = sorted(set(models.scales.values()))

    def run(path: str | None, label: str) -> tuple[tuple[str, str], str]:
        try:
            before, after, result = upscale(models, path, label, folder, max_pixels)
        except IgnnError as error:
            # The message names the upload's place on the server, which is nobody's business.
            raise gradio.Error(str(error).replace(str(path), "The picture"), print_exception=False) from error
        return (before, after), result

    with gradio.Blocks(title="IGNN", analytics_enabled=False) as page:
        gradio.Markdown("## IGNN: enlarge a picture")
        with gradio.Row():
            with gradio.Column(scale=1):
                picture = gradio.Image(label="Picture", type="filepath", sources=["upload"], image_mode=None)
                scale = gradio.Radio([(f"x{s}", s) for s in scales], value=scales[0], label="Scale")
                model = gradio.Dropdown(models.of_scale(scales[0]), value=models.of_scale(scales[0])[0], label="Model")
                button = gradio.Button("Enlarge", variant="primary")
            with gradio.Column(scale=2):
                slider = gradio.ImageSlider(label="Bicubic | IGNN", interactive=False)
                download = gradio.File(label="Download")
        scale.change(
            lambda s: gradio.Dropdown(models.of_scale(s), value=models.of_scale(s)[0]),
            scale,
            model,
            show_progress="hidden",
        )
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
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="port (default %(default)s)")
    parser.add_argument(
        "--max-megapixels", type=float, default=MAX_MEGAPIXELS, help="largest picture taken (default %(default)s)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.max_megapixels > 0:
        raise UsageError(f"Invalid --max-megapixels ({arguments.max_megapixels}). A number above 0 is expected.")
    gradio = _gradio()
    with tempfile.TemporaryDirectory(prefix="ignn-ui-") as name, Models(arguments.model) as models:
        page = build_page(models, Path(name), int(arguments.max_megapixels * 1e6))
        try:
            page.launch(
                server_name=arguments.host,
                server_port=arguments.port,
                max_file_size=f"{MAX_UPLOAD_MB}mb",
                allowed_paths=[name],
                prevent_thread_lock=True,
                quiet=True,
                # The default theme loads its fonts from another site.
                theme=gradio.themes.Base(font=["sans-serif"], font_mono=["monospace"]),
            )
        except OSError as error:
            raise UsageError(
                f"Cannot listen on {arguments.host}:{arguments.port} ({error}). Try another --port."
            ) from error
        sys.stdout.write(f"http://{arguments.host}:{arguments.port}  (stop with Ctrl-C)\n")
        sys.stdout.flush()
        page.block_thread()
    return 0


def _gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise BackendUnavailableError(
            f"The page needs Gradio, which cannot be loaded ({error}). Install it with: {install_command('ui')}"
        ) from error
    return gradio

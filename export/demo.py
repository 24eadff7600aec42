"""`ignn demo`: serve the page of `docs/demo`, which runs the bundled models in the browser, on this machine."""

from __future__ import annotations

import argparse
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from runtime.errors import BackendUnavailableError, UsageError
from runtime.models import FOLDER, bundled_models

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = "/docs/demo/"
"""The page's address: every file has the place that it has in the clone, so that any server of the clone will do."""

LIBRARY = "docs/demo/node_modules/onnxruntime-web/dist"
LIBRARY_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
INSTALL = "npm ci --ignore-scripts --prefix docs/demo"

HEADERS = {
    # Both make the page cross-origin isolated, without which the browser gives WebAssembly one thread.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "img-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def served_files() -> dict[str, Path]:
    """Return what is served: file by path of its address. Nothing else of the clone is.

    Raises:
        BackendUnavailableError: onnxruntime-web has not been fetched.
    """
    files = [
        path for path in (REPOSITORY / "docs" / "demo").iterdir() if path.suffix in (".html", ".css", ".js", ".svg")
    ]
    files += [REPOSITORY / LIBRARY / name for name in LIBRARY_FILES]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise BackendUnavailableError(
            f"onnxruntime-web is not in docs/demo (no {missing[0]}). In {REPOSITORY}, run: {INSTALL}"
        )
    files += [FOLDER / "models.json", *(FOLDER / model.file for model in bundled_models())]
    files += [REPOSITORY / "assets" / "sample.png"]
    served = {f"/{path.relative_to(REPOSITORY).as_posix()}": path for path in files}
    return {**served, PAGE: REPOSITORY / "docs" / "demo" / "index.html"}


class Handler(SimpleHTTPRequestHandler):
    """Answers with the files of `served_files`, and with the headers that isolate the page."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".json": "application/json",
        ".svg": "image/svg+xml",
    }
    files: dict[str, Path] = {}  # noqa: RUF012 (set once, by `make_server`)

    def do_GET(self) -> None:
        """Send a file, or send the visitor from `/` to the page."""
        if self._is_served():
            super().do_GET()

    def do_HEAD(self) -> None:
        """Send a file's headers."""
        if self._is_served():
            super().do_HEAD()

    def translate_path(self, path: str) -> str:
        """Return the file of an address that is known to be served."""
        return str(self.files[urlsplit(path).path])

    def end_headers(self) -> None:
        """Add ours to the headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing of requests."""

    def _is_served(self) -> bool:
        path = urlsplit(self.path).path
        if path == "/":
            self.send_response(302)
            self.send_header("Location", PAGE)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        if path not in self.files:
            self.send_error(404)
            return False
        return True


def make_server(port: int) -> ThreadingHTTPServer:
    """Return a server on this machine's loopback address that listens already; port 0: any free one.

    Raises:
        BackendUnavailableError: onnxruntime-web has not been fetched.
        UsageError: the port is taken, or is none.
    """
    handler = type("DemoHandler", (Handler,), {"files": served_files()})
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"Cannot listen on 127.0.0.1:{port} ({error}). Try another --port.") from error


def main(argv: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="ignn demo", description="Serve a page on this machine that enlarges pictures in the browser."
    )
    parser.add_argument("--port", type=int, default=7861, help="port (default %(default)s; 0: any free one)")
    with make_server(parser.parse_args(argv).port) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}{PAGE}  (stop with Ctrl-C)\n")
        sys.stdout.flush()
        server.serve_forever()
    return 0

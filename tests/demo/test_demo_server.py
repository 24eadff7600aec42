"""`ignn demo`: what it serves, with which headers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from export import demo
from runtime import cli
from runtime.models import bundled_models


def request(address: str, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_is_isolated_and_asks_nobody_else(address):
    status, headers, body = request(address, "/docs/demo/")
    assert status == 200
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    # The same policy where another server sends the page; `frame-ancestors` means nothing inside a page.
    own = re.search(r'content="(default-src[^"]*)"', body.decode())
    assert own is not None
    assert headers["Content-Security-Policy"] == f"{own[1]}; frame-ancestors 'none'"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "http" not in headers["Content-Security-Policy"]
    assert request(address, "/")[1]["Location"] == "/docs/demo/"


def test_what_the_page_needs_is_served(address):
    types = {
        "/docs/demo/worker.js": "text/javascript",
        f"/{demo.LIBRARY}/ort-wasm-simd-threaded.wasm": "application/wasm",
        f"/{demo.LIBRARY}/ort.wasm.min.mjs": "text/javascript",
        "/runtime/models/models.json": "application/json",
        "/assets/sample.png": "image/png",
    }
    for path, kind in types.items():
        status, headers, _ = request(address, path, "HEAD")
        assert (status, headers["Content-type"]) == (200, kind), path
    for model in bundled_models():
        assert request(address, f"/runtime/models/{model.file}", "HEAD")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/README.md",
        "/docs/demo",
        "/docs/demo/package.json",
        "/docs/demo/../../README.md",
        "/docs/demo/%2e%2e/%2e%2e/README.md",
        "//etc/passwd",
        "/runtime/models/",
        "/.git/config",
    ],
)
def test_nothing_else_is_served(address, path):
    assert request(address, path)[0] == 404


def test_the_readmes_ratios_are_those_of_the_json_file():
    document = json.loads((demo.REPOSITORY / "docs" / "demo" / "time.json").read_text())
    lines = []
    for row in document["rows"]:
        ratio = row["measurements"]["ratios"]["browser"]
        lines.append(
            f"| {row['config']['model']} | {row['config']['threads']} | {ratio['wall']:.2f} | "
            f"{ratio['wall_lowest_round']:.2f}, {ratio['wall_highest_round']:.2f} | {row['load_average'][0]:.1f} |"
        )
    text = (demo.REPOSITORY / "docs" / "demo" / "README.md").read_text()
    assert re.findall(r"^\| \S+-x\d \|.*$", text, re.MULTILINE) == lines


def test_without_the_library(monkeypatch, capsys):
    monkeypatch.setattr(demo, "LIBRARY", "docs/demo/nonesuch")
    assert cli.main(["demo"]) == 1
    assert demo.INSTALL in capsys.readouterr().err


def test_a_port_that_is_taken(library, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["demo", "--port", str(taken.getsockname()[1])]) == 1
    assert "Try another --port" in capsys.readouterr().err
    assert cli.main(["demo", "--port", "70000"]) == 1
    assert "Try another --port" in capsys.readouterr().err

"""Ask a server's models for a real picture: a model whose process was killed still calls itself ready."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from ..errors import ServerError, UsageError
from .repository import as_element, as_png

JSON_LENGTH = "Inference-Header-Content-Length"
"""Header that says where the JSON ends and the tensors begin."""


class Probe:
    """Asks one server, by HTTP.

    Args:
        url: `http://host:port` of the server.
        timeout_seconds: how long one answer may take.

    Raises:
        UsageError: not such a URL.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 10) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise UsageError(f"Invalid URL ({url!r}). http://host:port is expected, such as http://127.0.0.1:8000.")
        if not timeout_seconds > 0:
            raise UsageError(f"Invalid timeout ({timeout_seconds}). Numbers above 0 are supported.")
        self._url, self._timeout = url.rstrip("/"), timeout_seconds

    def models(self) -> list[str]:
        """Return the names of all models of the server's repository.

        Raises:
            ServerError: it does not answer, or has none.
        """
        answer, _ = self._ask("/v2/repository/index", b"{}")
        names = [str(entry["name"]) for entry in json.loads(answer)]
        if not names:
            raise ServerError(f"{self._url} has no models. Start it with `ignn serve`.")
        return names

    def check(self, model: str) -> None:
        """Have a model enlarge 16 x 16 pixels.

        Raises:
            ServerError: it does not answer in time, fails, or gives something else than an enlarged picture.
        """
        answer, _ = self._ask(f"/v2/models/{quote(model)}")
        inputs = json.loads(answer)["inputs"]
        kind = next(str(tensor["datatype"]) for tensor in inputs if tensor["name"] in ("lr", "file"))
        shape, data = _question(kind)
        name = "file" if kind == "BYTES" else "lr"
        request = {
            "inputs": [{"name": name, "shape": shape, "datatype": kind, "parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(request).encode()
        answer, length = self._ask(f"/v2/models/{quote(model)}/infer", head + data, {JSON_LENGTH: str(len(head))})
        output = json.loads(answer[:length])["outputs"][0]
        values = answer[length:]
        if kind == "BYTES":
            whole = values[4:].startswith(b"\x89PNG")
        else:
            side = max(output["shape"])
            whole = sorted(output["shape"]) == [1, 3, side, side] and side % 16 == 0 and len(values) >= 3 * side * side
        if not whole:
            raise ServerError(f"{self._url}: {model} answered with {len(values)} bytes that are no enlarged picture.")

    def recover(self, model: str) -> None:
        """Unload a model and load it again, which starts its processes anew.

        Raises:
            ServerError: the server refused, or the model does not load.
        """
        for verb in ("unload", "load"):
            self._ask(f"/v2/repository/models/{quote(model)}/{verb}", b"{}", timeout=60)

    def _ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, timeout: float | None = None
    ) -> tuple[bytes, int]:
        """Return the answer, and how many bytes of it are JSON."""
        request = urllib.request.Request(self._url + path, body, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=timeout or self._timeout) as response:
                answer: bytes = response.read()
                return answer, int(response.headers.get(JSON_LENGTH, len(answer)))
        except urllib.error.HTTPError as error:
            raise ServerError(f"{self._url}{path}: {_reason(error.read())} ({error.code})") from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"{self._url} does not answer ({reason}). Start it with `ignn serve`.") from error


def _question(kind: str) -> tuple[list[int], bytes]:
    """Return the shape and the bytes of an input of that type."""
    # Noise, new each time: a response cache would answer for a model that is dead.
    array = np.frombuffer(os.urandom(16 * 16 * 3), np.uint8).reshape(16, 16, 3)
    if kind == "BYTES":
        return [1, 1], as_element(as_png(array))
    if kind == "FP32":
        return [1, 3, 16, 16], array.transpose(2, 0, 1).astype(np.float32).tobytes()
    return [1, 16, 16, 3], array.tobytes()


def _reason(body: bytes) -> str:
    try:
        content: Any = json.loads(body)
        return str(content["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:200] or "no reason given"

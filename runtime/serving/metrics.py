"""Counters for Prometheus, of a run of `ignn batch` and of the page."""

from __future__ import annotations

from typing import Any

from ..clone import install_command
from ..errors import BackendUnavailableError, ServerError

STAGES = ("read", "decode", "network", "encode", "write")
"""Where time goes, in order."""


class Metrics:
    """Counts pictures, with the names that a server of `ignn serve` gives its own counters.

    Attributes:
        registry: what `prometheus_client` makes the text of.

    Raises:
        BackendUnavailableError: prometheus_client is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise BackendUnavailableError(
                f"prometheus-client is not installed ({error}). Install it with: {install_command('batch')}"
            ) from error
        self._library = prometheus_client
        self.registry = prometheus_client.CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Any:  # noqa: ANN401 - of the library
            return prometheus_client.Counter(f"ignn_{name}", text, labels, registry=self.registry)

        self._images = counter("images", "Pictures enlarged")
        self._pixels = counter("output_pixels", "Pixels of enlarged pictures")
        self._tiles = counter("tiles", "Tiles that the network ran on")
        self._seconds = counter("stage_seconds", "Time in each stage, of all workers together", "stage")
        self._errors = counter("errors", "Pictures that failed, by kind", "kind")
        self._retries = counter("retries", "Pictures met again, after what did them was lost")

    def enlarged(self, *, pixels: int, tiles: int, seconds: dict[str, float]) -> None:
        """Count a picture that is whole.

        Args:
            pixels: of the result, of all its frames.
            tiles: that it was cut into.
            seconds: time by stage.
        """
        self._images.inc()
        self._pixels.inc(pixels)
        self._tiles.inc(tiles)
        for stage, amount in seconds.items():
            self._seconds.labels(stage).inc(amount)

    def failed(self, kind: str) -> None:
        """Count a picture that failed with an error of this class."""
        self._errors.labels(kind).inc()

    def met_again(self) -> None:
        """Count a picture that was whole when a task that was begun anew came to it."""
        self._retries.inc()

    def text(self) -> str:
        """Return all counters in Prometheus' text format."""
        return self._library.generate_latest(self.registry).decode()

    def serve(self, port: int) -> Any:  # noqa: ANN401 - a server of the library
        """Serve the counters at http://127.0.0.1:PORT/metrics in a thread; returns what ends it, by `shutdown()`.

        Raises:
            ServerError: the port is taken, or is none.
        """
        try:
            server, _ = self._library.start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except (OSError, OverflowError) as error:
            raise ServerError(f"Cannot serve metrics on port {port} ({error}). Give another --metrics-port.") from error
        return server

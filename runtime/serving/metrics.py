"""What pictures took, counted for Prometheus: of a run of `ignn batch`, and of the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..clone import install_command
from ..errors import BackendUnavailableError, ServerError


class Stopwatch:
    """What one picture took.

    Attributes:
        seconds: time by stage: read, decode, network, encode, write.
        tiles: how many the network ran on.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tiles = 0

    def tile_done(self) -> None:
        """Count a tile."""
        self.tiles += 1

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of a stage that ends well."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


class Metrics:
    """Counts pictures, with the names that a server of `ignn serve` gives its own counters.

    Args:
        extra: the extra that brings prometheus_client.

    Raises:
        BackendUnavailableError: it is not installed.
    """

    def __init__(self, extra: str) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise BackendUnavailableError(
                f"prometheus-client is not installed ({error}). Install it with: {install_command(extra)}"
            ) from error
        self._library = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Any:  # noqa: ANN401 - of the library
            return prometheus_client.Counter(f"ignn_{name}", text, labels, registry=self._registry)

        self._images = counter("images", "Pictures enlarged")
        self._pixels = counter("output_pixels", "Pixels of enlarged pictures")
        self._tiles = counter("tiles", "Tiles that the network ran on")
        self._seconds = counter("stage_seconds", "Time in each stage, of all workers together", "stage")
        self._errors = counter("errors", "Pictures that failed, by kind", "kind")
        self._retries = counter("retries", "Pictures met again, after what did them was lost")

    def enlarged(self, pixels: int, watch: Stopwatch) -> None:
        """Count a picture that is whole.

        Args:
            pixels: of the result, of all its frames.
            watch: what it took.
        """
        self._images.inc()
        self._pixels.inc(pixels)
        self._tiles.inc(watch.tiles)
        for stage, amount in watch.seconds.items():
            self._seconds.labels(stage).inc(amount)

    def failed(self, kind: str) -> None:
        """Count a picture that failed with an error of this class."""
        self._errors.labels(kind).inc()

    def met_again(self) -> None:
        """Count a picture that was whole when a task that was begun anew came to it."""
        self._retries.inc()

    def serve(self, port: int) -> Any:  # noqa: ANN401 - a server of the library
        """Serve the counters at http://127.0.0.1:PORT/metrics in a thread; returns what ends it, by `shutdown()`.

        Raises:
            ServerError: the port is taken, or is none.
        """
        try:
            server, _ = self._library.start_http_server(port, addr="127.0.0.1", registry=self._registry)
        except (OSError, OverflowError) as error:
            raise ServerError(f"Cannot serve metrics on port {port} ({error}). Give another --metrics-port.") from error
        return server


@contextmanager
def served_metrics(port: int | None, extra: str) -> Iterator[Metrics | None]:
    """Serve counters while the block lasts; None where no port is given."""
    if port is None:
        yield None
        return
    metrics = Metrics(extra)
    server = metrics.serve(port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()

"""A real tritonserver, started by `ignn serve`; where there is none, what needs it is skipped by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from real_server import Server

from runtime import SuperResolver
from runtime.errors import BackendUnavailableError
from runtime.serving.server import find_program


@pytest.fixture(scope="session")
def real_server() -> None:
    """Skips where there is no tritonserver."""
    pytest.importorskip("tritonclient.grpc", reason="needs the extra serve")
    try:
        find_program()
    except BackendUnavailableError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="session")
def server(real_server) -> Iterator[Server]:
    """A server with the x2 network, small limits."""
    result = Server("--model", "edsr-s-x2", "--threads", "1", "--max-pixels", "4000", "--max-bytes", "60000")
    result.start()
    yield result
    result.stop()


@pytest.fixture
def own_server(real_server) -> Iterator[Server]:
    """A server that a test may break."""
    result = Server("--model", "edsr-s-x2", "--threads", "1")
    result.start()
    yield result
    result.stop()


@pytest.fixture(scope="session")
def resolver() -> SuperResolver:
    return SuperResolver("edsr-s-x2", threads=1)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Eight pictures, no two of one size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16 + n, 40 - 2 * n, 3), dtype=np.uint8) for n in range(8)]

"""The exports that several tests read."""

from __future__ import annotations

import pytest
from shared_exports import Exported, exporter


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a function that exports each kind of `shared_exports.KINDS` once."""
    return exporter(lambda: tmp_path_factory.mktemp("onnx"))

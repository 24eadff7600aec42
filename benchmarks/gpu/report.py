"""Results as JSON, with what they were measured on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from runtime.errors import BackendUnavailableError

RESULTS = Path(__file__).parent / "results"


def require_gpu() -> None:
    """Check that there is a CUDA device.

    Raises:
        BackendUnavailableError: there is none.
    """
    if not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"No CUDA device (PyTorch {torch.__version__}). Run this on a machine with an NVIDIA GPU."
        )


def environment() -> dict[str, Any]:
    """Return the GPU, the versions and the commit."""
    properties = torch.cuda.get_device_properties(0)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "commit": commit,
    }


def write(name: str, results: Any) -> Path:  # noqa: ANN401 (whatever JSON holds)
    """Write results/<name>_<gpu>.json and return its path."""
    measured_on = environment()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{measured_on['gpu'].replace(' ', '_')}.json"
    path.write_text(json.dumps({"environment": measured_on, "results": results}, indent=2) + "\n")
    sys.stdout.write(f"{path}\n")
    return path

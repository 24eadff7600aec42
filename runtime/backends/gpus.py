"""Which NVIDIA GPUs are here, as the driver's own tool says: nothing is loaded, no context is made."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        name: the product's name.
        compute_capability: `8.6`.
        driver: version of the driver.
    """

    name: str
    compute_capability: str
    driver: str


def list_gpus() -> list[Gpu]:
    """Every GPU that `nvidia-smi` (it ships with the driver) lists, in its order; none where it is absent or fails."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 3]

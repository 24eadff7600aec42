"""What a measurement depends on: the machine and its libraries."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """Return what is known of this machine, for JSON; `libraries` are names of packages."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in libraries},
    }


def _memory() -> int | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    facts = dict(line.split(":", 1) for line in lines if ":" in line)  # of the last core; they are alike
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    widest = next((flag for flag in ("amx_bf16", "avx512f", "avx2", "sse4_2") if flag in flags), "")
    return " ".join(
        filter(
            None,
            (
                facts.get("model name", "unknown"),
                f"family {facts.get('cpu family')}",
                f"model {facts.get('model')}",
                widest,
            ),
        )
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The capacity plan of docs/scale.md is arithmetic on the measured throughput."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CORES, PHOTOGRAPHS, OUTPUT_MEGAPIXELS = 16, 1_000_000, 4 * 12
SECONDS_A_DAY = 86_400


def test_the_plan_follows_from_the_measurement() -> None:
    rows = json.loads((REPOSITORY / "benchmarks" / "results" / "throughput.json").read_text())["rows"]
    wanted = {"model": "ignn-s", "height": 256, "batch": 1, "backend": "ONNX Runtime", "threads": 1}
    (row,) = (row for row in rows if wanted.items() <= row["config"].items())
    a_core = row["measurements"]["derived"]["output_megapixels_per_s"]
    page = " ".join((REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8").split())
    assert f"makes {a_core:.4f} megapixels of output a second" in page
    assert f"{OUTPUT_MEGAPIXELS / a_core:.0f} seconds of a core" in page
    for nodes in (1, 10, 100):
        days = PHOTOGRAPHS * OUTPUT_MEGAPIXELS / a_core / CORES / nodes / SECONDS_A_DAY
        assert f"| {nodes} | {days:.1f} |" in page
    a_second = a_core * CORES * 100 / OUTPUT_MEGAPIXELS
    assert f"finish {a_second:.1f} photographs a second" in page
    assert f"that is {a_second * 20:.0f} MB a second" in page

"""What docs/scale.md says is what was measured, and its capacity plan is arithmetic on it."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CORES, PHOTOGRAPHS, OUTPUT_MEGAPIXELS = 16, 1_000_000, 4 * 12
SECONDS_A_DAY = 86_400


def page() -> str:
    return " ".join((REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8").split())


def test_the_page_says_what_was_measured() -> None:
    measured = json.loads((REPOSITORY / "docs" / "scale.json").read_text())
    server, batch = measured["server"], measured["batch"]
    assert (server["clients"], server["picture"], batch["actors"]) == (8, [64, 64], 2)
    assert server["model"] == batch["model"] == "edsr-s-x2"
    memory = [round(taken / 1e6) for taken in server["memory_bytes"]]
    for said in (
        f"for {server['seconds']} seconds: {server['requests']} pictures, {server['errors']} errors,",
        f"{server['pictures_per_second']:.2f} a second;",
        f"within {server['seconds_p50']:.2f} s, 99 % within {server['seconds_p99']:.2f} s.",
        f"between {min(memory)} and {max(memory)} MB",
        f"{batch['batch_by_upscale']:.2f} times the pictures a second",
        f"after {batch['batch']['seconds_to_the_first']:.1f} s,",
        f"against {batch['upscale']['seconds_to_the_first']:.1f} s: Ray starts",
    ):
        assert said in page()


def test_the_plan_follows_from_the_measurement() -> None:
    rows = json.loads((REPOSITORY / "benchmarks" / "results" / "throughput.json").read_text())["rows"]
    wanted = {"model": "ignn-s", "height": 256, "batch": 1, "backend": "ONNX Runtime", "threads": 1}
    (row,) = (row for row in rows if wanted.items() <= row["config"].items())
    a_core = row["measurements"]["derived"]["output_megapixels_per_s"]
    assert f"makes {a_core:.4f} megapixels of output a second" in page()
    assert f"{OUTPUT_MEGAPIXELS / a_core:.0f} seconds of a core" in page()
    for nodes in (1, 10, 100):
        days = PHOTOGRAPHS * OUTPUT_MEGAPIXELS / a_core / CORES / nodes / SECONDS_A_DAY
        assert f"| {nodes} | {days:.1f} |" in page()
    a_second = a_core * CORES * 100 / OUTPUT_MEGAPIXELS
    assert f"finish {a_second:.1f} photographs a second" in page()
    assert f"that is {a_second * 20:.0f} MB a second" in page()

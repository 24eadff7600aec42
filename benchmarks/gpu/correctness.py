"""Run the tests that need a GPU and keep every outcome.

    python -m benchmarks.gpu.correctness [pytest arguments]

Writes benchmarks/gpu/results/correctness_<gpu>.json: one outcome a test, and the text of each failure.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from benchmarks.gpu.report import require_gpu, write
from runtime.cli import run_command


class Outcomes:
    """A pytest plugin that collects outcomes."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.tests[report.nodeid] = {"outcome": report.outcome}
            if report.outcome != "passed":
                self.tests[report.nodeid]["text"] = report.longreprtext[-4000:]


def main(argv: list[str] | None = None) -> int:
    """Run the GPU tests and write their outcomes; return pytest's exit status."""
    require_gpu()
    outcomes = Outcomes()
    chosen = sys.argv[1:] if argv is None else argv
    status = pytest.main(["-m", "gpu", "-q", *chosen], plugins=[outcomes])
    counts = Counter(test["outcome"] for test in outcomes.tests.values())
    write("correctness", {"counts": counts, "tests": outcomes.tests})
    return int(status)


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks.gpu.correctness", main))

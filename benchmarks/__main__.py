"""`python -m benchmarks NAME`: measure, write JSON, print a table; `report`: write the pages made from that JSON."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.report import markdown, update_pages
from benchmarks.results import FOLDER, REPOSITORY, Results, environment, load, read
from runtime.cli import run_command

NAMES = ("models", "startup", "throughput", "graph_overhead", "memory", "scaling", "baseline", "peers", "large")
QUICK_FOLDER = REPOSITORY / "out" / "benchmarks" / "quick"


def main(argv: list[str] | None = None) -> int:
    """Measure, or write the report, as the flags say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=[*NAMES, "all", "report"], metavar="NAME", help=f"{', '.join(NAMES)}, all or report"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks: does it work, and is its output well formed?"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--threads", type=int, help="default: all cores here, with --quick 1")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help=f"default: {FOLDER.relative_to(REPOSITORY)}, with --quick out/"
    )
    arguments = parser.parse_args(argv)
    folder = arguments.output or (QUICK_FOLDER if arguments.quick else FOLDER)
    if arguments.name == "report":
        update_pages(folder)
        return 0
    threads = arguments.threads or (1 if arguments.quick else len(os.sched_getaffinity(0)))
    measured_on = environment(threads)
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        run(name, folder, measured_on, quick=arguments.quick, fresh=arguments.fresh or arguments.quick)
    return 0


def run(name: str, folder: Path, measured_on: dict, *, quick: bool, fresh: bool) -> None:
    """Measure what the file in `folder` does not hold yet; print the whole table."""
    benchmark = load(name)
    path = folder / f"{name}.json"
    results = Results(path, name, measured_on, fresh=fresh)
    configs = benchmark.cases(measured_on["threads"], quick=quick)
    for number, config in enumerate(configs, 1):
        if config in results:
            continue
        shown = ", ".join(f"{key} {value}" for key, value in config.items() if "sha256" not in key)
        sys.stderr.write(f"{name} {number}/{len(configs)}: {shown}\n")
        load_average = os.getloadavg()
        results.add(config, benchmark.measure(config), load_average)
        results.finish(configs, benchmark.targets)  # whole after every row: what is interrupted can be reported
    results.finish(configs, benchmark.targets)
    document = read(path)
    sys.stdout.write(markdown(benchmark.table(document["rows"])) + "\n")
    for target in [] if quick else document["targets"]:
        sys.stdout.write(
            f"{target['figure']}: {target['measured']:.3g} {target['unit']} (target: at most {target['limit']:.3g})\n"
        )
    sys.stdout.write(f"-> {path}\n\n")


if __name__ == "__main__":
    sys.exit(run_command("python -m benchmarks", main))

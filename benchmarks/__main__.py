"""`python -m benchmarks NAME`: measure, write JSON, print a table; `report`: write the pages made from that JSON."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, update_pages
from benchmarks.results import FOLDER, REPOSITORY, Results, environment, load, read
from runtime.cli import run_command

NAMES = (
    "models",
    "startup",
    "throughput",
    "graph_overhead",
    "memory",
    "scaling",
    "baseline",
    "peers",
    "large",
    "quality_per_second",
    "profile",
    "batches",
)
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
    quality = parser.add_argument_group("quality_per_second")
    quality.add_argument("--data", type=Path, metavar="FOLDER", help="HR images, such as Urban100")
    quality.add_argument("--limit", type=int, metavar="N", help="only the first N of them (default: 10)")
    quality.add_argument(
        "--peer", action="append", nargs=3, default=[], metavar=("NAME", "RANGE", "FILE"),
        help="another project's x2 ONNX file, e.g. IMDN 0..1 imdn_x2.onnx; may be repeated",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    folder = arguments.output or (QUICK_FOLDER if arguments.quick else FOLDER)
    if arguments.name == "report":
        update_pages(folder)
        return 0
    threads = arguments.threads or (1 if arguments.quick else len(os.sched_getaffinity(0)))
    measured_on = environment(threads)
    peers = tuple((name, value_range, Path(file)) for name, value_range, file in arguments.peer)
    given = {"quality_per_second": {"data": arguments.data, "peers": peers, "limit": arguments.limit}}
    for name in NAMES if arguments.name == "all" else [arguments.name]:
        if name in given and arguments.name == "all" and not (arguments.data or arguments.quick):
            sys.stderr.write(f"{name}: not run: it needs --data FOLDER\n")
            continue
        fresh = arguments.fresh or arguments.quick
        run(name, folder, measured_on, quick=arguments.quick, fresh=fresh, **given.get(name, {}))
    return 0


def run(name: str, folder: Path, measured_on: dict, *, quick: bool, fresh: bool, **given: Any) -> None:
    """Measure what the file in `folder` does not hold yet; print the whole table. `given` goes to the benchmark."""
    benchmark = load(name)
    path = folder / f"{name}.json"
    results = Results(path, name, measured_on, fresh=fresh)
    configs = benchmark.cases(measured_on["threads"], quick=quick, **given)
    for number, config in enumerate(configs, 1):
        if config in results:
            continue
        shown = ", ".join(f"{key} {value}" for key, value in config.items() if "sha256" not in key)
        sys.stderr.write(f"{name} {number}/{len(configs)}: {shown}\n")
        load_average = os.getloadavg()
        results.add(config, benchmark.measure(config, **given), load_average)
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

"""`ignn probe`: does a server work? By a real picture, for people and for Kubernetes."""

from __future__ import annotations

import argparse
import sys

from ..errors import ServerError
from ..serving.probe import Probe


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    result = argparse.ArgumentParser(
        prog="ignn probe",
        description="Have each model of a server enlarge 16 x 16 pixels. Exit code 0: all do; 1: one does not.",
    )
    result.add_argument("url", help="http://host:port of the server")
    result.add_argument("--model", action="append", metavar="M", help="ask this one (default: all)")
    result.add_argument("--timeout", type=float, default=10, help="seconds that one answer may take (default 10)")
    result.add_argument("--recover", action="store_true", help="load a model that fails again, and ask it once more")
    return result


def main(argv: list[str]) -> int:
    """Ask the server for one small picture; return the exit code."""
    arguments = parser().parse_args(argv)
    probe = Probe(arguments.url, timeout_seconds=arguments.timeout)
    failed = 0
    for model in arguments.model or probe.models():
        try:
            _ask(probe, model, recover=arguments.recover)
        except ServerError as error:
            failed += 1
            sys.stderr.write(f"ignn probe: error: {model}: {error}\n")
        else:
            sys.stdout.write(f"{model}: works\n")
    return 1 if failed else 0


def _ask(probe: Probe, model: str, *, recover: bool) -> None:
    try:
        probe.check(model)
    except ServerError as error:
        if not recover:
            raise
        sys.stderr.write(f"ignn probe: {model}: {error}; loading it again\n")
        probe.recover(model)
        probe.check(model)

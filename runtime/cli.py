"""The command line: `ignn COMMAND ...`. An error is one message and a non-zero exit, never a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from importlib import import_module, metadata

from runtime.errors import IgnnError

Main = Callable[[list[str]], int]

COMMANDS = {
    "upscale": ("runtime.upscale", "enlarge pictures"),
    "compare": ("runtime.compare", "put pictures side by side where they differ most"),
    "ui": ("runtime.ui", "serve a page on this machine"),
    "models": ("runtime.list_models", "list the bundled models"),
    "doctor": ("runtime.doctor", "say what is installed, and what to do about the rest"),
}
"""Commands of this package: module with `main(argv)`, and what they do. Other packages add theirs by entry points."""

ENTRY_POINT_GROUP = "ignn.commands"


def main(argv: list[str] | None = None) -> int:
    """Run `ignn` with these arguments (default: those of the process); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    others = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    commands = [f"  {name:<10}{text}" for name, (_, text) in COMMANDS.items()]
    commands += [f"  {name:<10}see `ignn {name} --help`" for name in sorted(set(others) - set(COMMANDS))]
    parser = argparse.ArgumentParser(
        prog="ignn",
        description="Graph-network image super-resolution.",
        epilog="commands:\n" + "\n".join(commands),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ignn {_version()}")
    parser.add_argument("command", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see `ignn COMMAND --help`")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(format="ignn: %(message)s", level=logging.WARNING)
    try:
        run = _find(parsed.command, others)
        return run(parsed.arguments)
    except IgnnError as error:
        sys.stderr.write(f"ignn {parsed.command}: error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"ignn {parsed.command}: interrupted; what was written is whole\n")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 141


def _find(name: str, others: dict[str, metadata.EntryPoint]) -> Main:
    if name in COMMANDS:
        found: Main = import_module(COMMANDS[name][0]).main
        return found
    if name not in others:
        raise IgnnError(f"Invalid command ({name!r}). Supported values are {', '.join(sorted({*COMMANDS, *others}))}.")
    try:
        loaded: Main = others[name].load()
        return loaded
    except ModuleNotFoundError as error:
        raise IgnnError(
            f"{name} needs the module {error.name!r}, which is not installed. Try `pip install ignn[train]`."
        ) from error


def _version() -> str:
    try:
        return metadata.version("ignn")
    except metadata.PackageNotFoundError:
        return "(not installed: running from the source tree)"


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `ignn COMMAND ...`. An error is one message and a non-zero exit, never a traceback."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata

from .clone import PACKAGE_FOLDER, find_clone, install_command
from .errors import IgnnError, explain

Main = Callable[[list[str]], int]

COMMANDS = {
    "upscale": (".commands.upscale", "enlarge pictures, folders and clips"),
    "compare": (".commands.compare", "put pictures side by side where they differ most"),
    "ui": (".commands.ui", "serve a page on this machine"),
    "serve": (".commands.serve", "serve networks by NVIDIA Triton"),
    "batch": (".commands.cluster", "enlarge a folder or a bucket on a cluster"),
    "probe": (".commands.probe", "ask a server for a picture, to know whether it works"),
    "bench": (".commands.bench", "measure every backend that is installed, on a photograph of yours"),
    "models": (".commands.models", "list the bundled models"),
    "doctor": (".commands.doctor", "say what is installed, and what to do about the rest"),
}
"""Commands of this package: module with `main(argv)`, and what it does."""

CLONE_COMMANDS = {
    "export": ("export.to_onnx", "main", "make an ONNX file of a checkpoint"),
    "build": ("export.to_engine", "main", "make a TensorRT engine of an ONNX file"),
    "verify": ("export.verify", "main", "compare every runtime with PyTorch on one picture"),
    "demo": ("export.demo", "main", "serve a page on this machine that runs the models in the browser"),
    "train": ("train.fit", "main", "train a network, or go on with a run"),
    "curve": ("train.curve", "main", "draw and keep the curves of training runs"),
    "photographs": ("train.photographs", "main", "check a folder against the list of public training photographs"),
    "evaluate": ("train.evaluate", "main", "measure PSNR and SSIM by the paper's protocol"),
    "scoreboard": ("train.scoreboard", "main", "measure all methods on all test sets, and go on where it stopped"),
    "ablation": ("train.ablation", "main", "train and measure rows of the paper's tables"),
    "neighbors": ("train.neighbor_sheet", "main", "draw the patches that the graph finds for one place"),
    "graph-report": ("train.graph_report", "main", "measure how much a network uses its graph"),
    "graphagg-star": ("train.figures", "graphagg_star_main", "enlarge without learning, by the picture's own patches"),
    "feature-maps": ("train.figures", "feature_maps_main", "draw the features before and after the graph"),
}
"""Commands of a clone's other folders: module, its function, and what it does."""


def main(argv: list[str] | None = None) -> int:
    """Run `ignn` with these arguments (default: those of the process); return the exit code."""
    parser = argparse.ArgumentParser(
        prog="ignn",
        description="Graph-network image super-resolution.",
        epilog=_list_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ignn {_version()}")
    parser.add_argument("command", nargs="?", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see `ignn COMMAND --help`")
    parsed = parser.parse_args(argv)
    if parsed.command is None:
        parser.print_help(sys.stderr)
        return 2
    return run_command(f"ignn {parsed.command}", lambda: _run(parsed.command, parsed.arguments))


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run a command, print an error as one message, and return the exit code.

    Args:
        name: what the user typed, e.g. `ignn upscale` or `python export/to_onnx.py`.
        command: does it, and returns the exit code.
    """
    logging.basicConfig(format="ignn: %(message)s", level=logging.WARNING)
    try:
        return command()
    except IgnnError as error:
        sys.stderr.write(f"{name}: error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted; what was written is whole\n")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 141
    except Exception as error:
        sys.stderr.write(f"{name}: error: {explain(error)}\n")
        return 1


def _list_commands() -> str:
    of_clones = {name: text for name, (_, _, text) in CLONE_COMMANDS.items()}
    width = max(map(len, [*COMMANDS, *of_clones])) + 2
    lines = ["commands:", *(f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items())]
    lines += ["in a clone of the project:", *(f"  {name:<{width}}{text}" for name, text in of_clones.items())]
    return "\n".join(lines)


def _run(name: str, arguments: list[str]) -> int:
    if name in COMMANDS:
        run: Main = import_module(COMMANDS[name][0], __package__).main
        return run(arguments)
    if name not in CLONE_COMMANDS:
        names = ", ".join([*COMMANDS, *CLONE_COMMANDS])
        raise IgnnError(f"Invalid command ({name!r}). Supported values are {names}.")
    clone = find_clone()
    if clone is None:
        raise IgnnError(
            f"`ignn {name}` works in a clone of the project: the installed package holds what enlarges pictures, not "
            f"what trains and exports. Go to the clone's folder, and run `ignn {name}` there."
        )
    if clone != PACKAGE_FOLDER.parent:  # the clone's own code, in a process that holds no other copy of it
        code = subprocess.call([sys.executable, "-m", "runtime.cli", name, *arguments])
        return code if code >= 0 else 128 - code  # ended by a signal: as a shell says it
    if str(clone) not in sys.path:
        sys.path.insert(0, str(clone))
    module, function, _ = CLONE_COMMANDS[name]
    try:
        run = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise IgnnError(
            f"`ignn {name}` needs the module {error.name!r}, which is not installed. "
            f"Run: {install_command('train,cpu')}"
        ) from error
    return run(arguments)


def _version() -> str:
    try:
        return metadata.version("ignn")
    except metadata.PackageNotFoundError:
        return "(not installed: running from the source tree)"


if __name__ == "__main__":
    sys.exit(main())

"""List the public photographs to train on, check a folder against their checksums, and keep evaluation images out.

`photographs.json` beside this file names them: for each folder of a public repository its use, its licence and the
SHA-256 of every file (null for an evaluation image that is known by its name alone). Nothing is downloaded here: the
message says which `git` commands do it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runtime.cli import run_command
from runtime.errors import IgnnError, UsageError

_MANIFEST = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class PhotographSet:
    """One folder of the public repository."""

    folder: str
    """Path in the repository."""
    use: str
    """"training" or "evaluation"."""
    license: str
    credit: str
    """Whom a model card names."""
    files: dict[str, str | None]
    """File name to SHA-256 in hex; None: not known."""


@cache
def photograph_sets() -> tuple[str, str, tuple[PhotographSet, ...]]:
    """Return (address of the repository, its commit, its folders)."""
    content = json.loads(_MANIFEST.read_text(encoding="utf-8"))
    return content["source"], content["commit"], tuple(PhotographSet(**entry) for entry in content["folders"])


def training_sets() -> list[PhotographSet]:
    """Return the folders to train on."""
    return [item for item in photograph_sets()[2] if item.use == "training"]


def download_commands() -> str:
    """Return the shell commands that bring the training folders, and nothing else, into `codec-corpus/`."""
    source, commit, _ = photograph_sets()
    folders = " ".join(item.folder for item in training_sets())
    return (
        f"git clone --filter=blob:none --no-checkout {source}.git codec-corpus\n"
        f"git -C codec-corpus sparse-checkout set {folders}\n"
        f"git -C codec-corpus checkout {commit}"
    )


def check_folder(folder: Path) -> list[str]:
    """Compare a folder, at any depth, with the training photographs.

    Returns:
        one line per set: how many photographs are there.

    Raises:
        UsageError: if the folder does not exist, or evaluation images lie in it.
        IgnnError: if photographs are missing or are not the listed files; the message names them.
    """
    if not folder.is_dir():
        raise UsageError(f"Folder {folder} does not exist. Get the photographs first:\n{download_commands()}")
    found = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.parts}
    refuse_evaluation_images(found.values())
    lines, faults = [], []
    for item in training_sets():
        missing = [name for name in item.files if name not in found]
        changed = [name for name, sha256 in item.files.items() if name in found and _sha256(found[name]) != sha256]
        good = len(item.files) - len(missing) - len(changed)
        lines.append(f"{item.folder}: {good} of {len(item.files)} photographs, {item.license} ({item.credit})")
        faults += [f"{item.folder}: {len(missing)} missing ({_some(missing)})"] * bool(missing)
        faults += [f"{item.folder}: {len(changed)} not the listed files ({_some(changed)})"] * bool(changed)
    if faults:
        raise IgnnError("\n  ".join([f"{folder} does not hold all photographs:", *faults]) + f"\n{_advice()}")
    return lines


def refuse_evaluation_images(paths: Iterable[Path]) -> None:
    """Raise if a file is of a set that is for measuring only, by its name up to the first dot or by its content.

    Raises:
        UsageError: names the files.
    """
    names, checksums = _evaluation_images()
    bad = [path for path in paths if path.name.split(".")[0] in names or _sha256(path) in checksums]
    if bad:
        sets = ", ".join(item.folder for item in photograph_sets()[2] if item.use == "evaluation")
        raise UsageError(
            f"{len(bad)} images are for measuring only ({_some([str(path) for path in bad])}): a network that was "
            f"trained on them cannot be compared with others. Take the images of {sets} out of the training folder."
        )


@cache
def _evaluation_images() -> tuple[frozenset[str], frozenset[str]]:
    files = [pair for item in photograph_sets()[2] if item.use == "evaluation" for pair in item.files.items()]
    return frozenset(name.split(".")[0] for name, _ in files), frozenset(sha256 for _, sha256 in files if sha256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _advice() -> str:
    return f"Get them, then check again with `ignn photographs`:\n{download_commands()}\nignn photographs codec-corpus"


def main(argv: list[str] | None = None) -> int:
    """Check a folder, or print how to get the photographs (`ignn photographs`)."""
    parser = argparse.ArgumentParser(
        prog="ignn photographs",
        description="Check a folder against the list of public training photographs. Downloads nothing.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder with the photographs; none: say how to get them")
    folder = parser.parse_args(argv).folder
    if folder is None:
        for item in training_sets():
            sys.stdout.write(f"{item.folder}: {len(item.files)} photographs, {item.license} ({item.credit})\n")
        sys.stdout.write(f"{download_commands()}\nignn photographs codec-corpus\n")
        return 0
    for line in check_folder(folder):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"All are there. Train on them: ignn train --data {folder} ...\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.photographs", main))

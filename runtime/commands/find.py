"""Find the files that a command line names, and where their outputs go."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ..errors import ImageReadError, UsageError
from ..pictures.readers import EXTRA_SUFFIXES
from ..pictures.write import FORMATS
from .clip_streams import READABLE as CLIPS
from .clip_streams import SUFFIXES as CLIP_SUFFIXES
from .jobs import STANDARD_INPUT, STANDARD_OUTPUT, Job

logger = logging.getLogger("ignn")

READABLE = {*FORMATS, ".jpe", ".jfif", ".ppm", ".pgm", ".pnm", ".tga", ".jp2", ".ico", ".avifs", *EXTRA_SUFFIXES}
"""Suffixes that are taken from folders; a file that is named is tried whatever its suffix."""


def find_jobs(
    names: list[str], output: str, *, recursive: bool = False, suffix: str | None = None, scale: int = 1
) -> list[Job]:
    """Find the jobs of a command line.

    Args:
        names: files, folders and patterns (`*.jpg`, `**/*.png`), as the user typed them; or `-` alone, standard input.
        output: a file for one input; a folder; a pattern with {stem}, {name}, {folder}, {suffix} or {scale}; or `-`,
            standard output, for one picture.
        recursive: take folders with everything below them, and mirror that below the output.
        suffix: suffix of the outputs; None: that of the input, or .png if that is not written.
        scale: what {scale} stands for.

    Raises:
        ImageReadError: nothing was found.
        UsageError: two inputs have one output, an output is an input, or the output fits neither inputs nor format.
    """
    if "-" in names:
        return [_job_of_standard_input(names, output, suffix)]
    found = [entry for name in names for entry in _find(name, recursive=recursive)]
    single = len(found) == 1 and not _is_folder(Path(names[0]))
    if output == "-":
        if not single or is_clip(found[0].path):
            raise UsageError("-o - writes one picture to standard output. Name one picture, or give a folder.")
        return [Job(found[0].path, STANDARD_OUTPUT, suffix or _own_suffix(found[0].path))]
    _check_output(output, len(found) if not single else 1, suffix)
    jobs = [Job(entry.path, _target(entry.path, entry.base, output, single, suffix, scale)) for entry in found]
    jobs = _without_outputs(jobs, found, folder_of(output))
    if not jobs:
        raise ImageReadError(
            f"No pictures in {', '.join(names)}. Supported suffixes are {', '.join(sorted(READABLE))}. "
            "For folders below give --recursive."
        )
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        place = job.target.resolve()
        if place in sources:
            raise UsageError(f"{job.target} is an input as well. Choose another -o.")
        if place in taken:
            raise UsageError(
                f"{taken[place]} and {job.source} would both become {job.target}. "
                "Use a pattern: -o 'out/{folder}/{name}.png'."
            )
        taken[place] = job.source
    return jobs


def is_single(names: list[str], jobs: list[Job]) -> bool:
    """Return whether the user named one file, and not several, a folder or a pattern."""
    return len(jobs) == 1 and (jobs[0].source is STANDARD_INPUT or Path(names[0]) == jobs[0].source)


def _job_of_standard_input(names: list[str], output: str, suffix: str | None) -> Job:
    if len(names) > 1:
        raise UsageError("- is standard input, which is enlarged alone. Leave out the other inputs.")
    if output == "-":
        return Job(STANDARD_INPUT, STANDARD_OUTPUT, suffix)
    target = Path(output)
    if "{" in output or not target.suffix or _is_folder(target):
        raise UsageError(f"Standard input has no name for -o {output}. Give a file, or - for standard output.")
    _check_output(output, 1, suffix)
    return Job(STANDARD_INPUT, target)


def _check_output(output: str, count: int, suffix: str | None) -> None:
    """Refuse an output that names one file for several inputs, or another format than the one asked for."""
    path = Path(output)
    named = path.suffix.lower()
    if named not in {*FORMATS, *CLIP_SUFFIXES} or _is_folder(path):
        return
    if count > 1 and "{" not in output:
        raise UsageError(
            f"-o {output} is one file, and there are {count} inputs. Give a folder, or a pattern: "
            f"-o '{path.with_name('{stem}')}{path.suffix}'."
        )
    if suffix is not None and named in FORMATS and FORMATS[named].pillow != FORMATS[suffix].pillow:
        raise UsageError(f"-o {output} and --format {suffix[1:]} name two formats. Leave out one of them.")


@dataclass(frozen=True)
class _Found:
    """A file of the command line.

    Attributes:
        path: the file.
        base: the folder that it was found in or below.
        named: whether the user named it, and not a folder or a pattern.
    """

    path: Path
    base: Path
    named: bool = False


def _find(name: str, *, recursive: bool) -> Iterator[_Found]:
    """Yield the files of one argument."""
    path = Path(name)
    if _is_folder(path):
        yield from (_Found(file, path) for file in _pictures_in(path, recursive=recursive))
    elif glob.has_magic(name) and not os.path.lexists(name):
        for match in sorted(glob.glob(name, recursive=True)):
            if Path(match).is_file():
                yield _Found(Path(match), Path(match).parent)
    else:
        yield _Found(path, path.parent, named=True)


def _without_outputs(jobs: list[Job], found: list[_Found], folder: Path) -> list[Job]:
    """Leave out what this command wrote before: files that are another's output, or lie in a folder of outputs below.

    Args:
        jobs: one for each file that was found, in that order.
        found: the files.
        folder: where all outputs lie in or below.
    """
    by_target = {job.target.resolve(): job for job in jobs}
    place = folder.resolve()

    def is_output(job: Job, entry: _Found) -> bool:
        source = job.source.resolve()
        other = by_target.get(source, job)
        return other is not job or (entry.base.resolve() in place.parents and place in source.parents)

    return [job for job, entry in zip(jobs, found, strict=True) if entry.named or not is_output(job, entry)]


def folder_of(output: str) -> Path:
    """Return the folder that all outputs lie in or below."""
    parts = Path(output).parts
    first = next((index for index, part in enumerate(parts) if "{" in part), len(parts))
    return Path(*parts[:first])


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: reading or writing it says so
        return False


def _pictures_in(folder: Path, *, recursive: bool) -> list[Path]:
    """Return the pictures in a folder; a folder below it that cannot be read is left out, with a word."""

    def refused(error: OSError) -> None:
        if error.filename == str(folder):
            raise ImageReadError(f"The folder {folder} cannot be read: {error.strerror}. Give another one.") from error
        logger.warning("left out the folder %s: %s", error.filename, error.strerror)

    found: list[Path] = []
    for place, below, names in os.walk(folder, onerror=refused):
        found += (Path(place, name) for name in names if Path(name).suffix.lower() in READABLE)
        if not recursive:
            below.clear()
    return sorted(file for file in found if file.is_file())


def is_clip(path: Path) -> bool:
    """Return whether a file is taken for a clip, by its suffix."""
    return path.suffix.lower() in CLIPS


def _own_suffix(source: Path) -> str:
    """Return the suffix that an output has where the user names none: the input's, if it is written."""
    suffix = source.suffix.lower()
    if suffix in CLIP_SUFFIXES:
        return source.suffix
    if is_clip(source):
        return next(written for written, container in CLIP_SUFFIXES.items() if container == CLIPS[suffix])
    return picture_suffix(source.suffix, lambda: source.open("rb"))


def picture_suffix(suffix: str, open_file: Callable[[], BinaryIO]) -> str:
    """Return the suffix that an enlarged picture has where the user names none.

    Args:
        suffix: of the input.
        open_file: opens the input, whose header may decide.
    """
    if suffix.lower() == ".bmp" and _is_transparent(open_file):
        return ".png"  # no BMP with transparency is written
    return suffix if suffix.lower() in FORMATS else ".png"


def _is_transparent(open_file: Callable[[], BinaryIO]) -> bool:
    try:
        with open_file() as file, Image.open(file) as image:  # its header alone
            return image.mode in ("RGBA", "LA", "PA")
    except Exception:  # damaged: that is said when it is read
        return False


def _target(source: Path, base: Path, output: str, single: bool, suffix: str | None, scale: int) -> Path:
    chosen = suffix or _own_suffix(source)
    if "{" in output:
        fields = {
            "stem": source.stem,
            "name": source.name,
            "suffix": chosen,
            "folder": str(source.parent.relative_to(base)),
            "scale": str(scale),
        }
        try:
            return Path(output.format(**fields))
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UsageError(
                f"Invalid pattern ({output!r}). Supported fields are {', '.join('{' + key + '}' for key in fields)}."
            ) from error
    folder = Path(output)
    if single and folder.suffix and not _is_folder(folder):
        return folder
    return folder / source.parent.relative_to(base) / f"{source.stem}{chosen}"

"""Building an engine: `build_engine`, and the process that does it.

TensorRT ends the process on some errors, and TensorRT-RTX needs a search path that is read when a process starts. So a
child, `python -m runtime.backends.engine_child REQUEST.json`, builds, and says on its standard output what happens: one
JSON object a line.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..atomic import atomic_path
from ..errors import BackendUnavailableError, EngineBuildError, UsageError
from ..metadata import Key
from .onnx_file import read_facts, refuse_inlined
from .plugin_library import build_command
from .tensorrt_library import NAMES, Flavor, parser_environment

logger = logging.getLogger("ignn")

Size = tuple[int, int, int]
"""N, H, W."""


@dataclass(frozen=True)
class Profile:
    """Inputs that an engine takes: from `minimum` to `maximum` (N, H, W), fastest at `optimum`."""

    minimum: Size
    optimum: Size
    maximum: Size

    def holds(self, size: Size) -> bool:
        """Whether an engine of this profile takes that input."""
        return all(low <= n <= high for low, n, high in zip(self.minimum, size, self.maximum, strict=True))

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {'x'.join(map(str, getattr(self, f.name)))}" for f in fields(self))


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        flavor: which TensorRT builds it.
        profile: inputs that it takes.
        plugin: library of the graph operators; None tries their bodies.
        plugin_inside: write the plugin library into the engine file.
        compute_capability: `8.6`, of the GPU that it is for, TensorRT-RTX only; None: the GPU that is here.
        timing_cache: file of TensorRT's measurements, read and extended.
        tf32: let float32 layers round their inputs to TF32 (10 bits of mantissa), which tensor cores multiply.
    """

    flavor: Flavor
    profile: Profile
    plugin: Path | None
    plugin_inside: bool = True
    compute_capability: str | None = None
    timing_cache: Path | None = None
    tf32: bool = False


@dataclass(frozen=True)
class BuildReport:
    """What was built, as TensorRT tells it.

    Attributes:
        version: TensorRT's.
        operator_calls: calls of our operators in the ONNX file.
        plugin_layers: layers of the network that are plugins.
        convolutions: number of convolution layers by the type they compute in, e.g. {"HALF": 40}.
        inspected: whether these are the engine's own, by its inspector; else those of the network it was built from.
        plugin_inside: whether the engine file holds the plugin library.
        tf32: whether float32 layers may compute in TF32.
        engine_bytes: size of the engine.
    """

    version: str
    operator_calls: int
    plugin_layers: int
    convolutions: dict[str, int]
    inspected: bool
    plugin_inside: bool
    tf32: bool
    engine_bytes: int


def build_engine(model: bytes, request: BuildRequest, output: Path, *, source: str, quiet: bool = False) -> BuildReport:
    """Build an engine from an ONNX file's content; `output` appears whole, or not at all.

    Args:
        model: the ONNX file's content.
        request: what to build.
        output: file to write.
        source: what to call the model in messages.
        quiet: no progress bar.

    Raises:
        UsageError: the folder of `output` does not exist, or cannot be written.
        ModelLoadError: it is not an ONNX file.
        BackendUnavailableError: TensorRT is not installed.
        EngineBuildError: the file is inlined, TensorRT refused it, or made another network of it than was meant.
    """
    _check_output(output)
    facts = read_facts(model, source=source)
    refuse_inlined(facts, source=source)
    try:
        with tempfile.TemporaryDirectory(prefix="ignn_build_") as name:
            folder, built = Path(name), Path(name) / "engine"
            (folder / "model.onnx").write_bytes(model)
            (folder / "links").mkdir()
            task = {
                "model": str(folder / "model.onnx"),
                "output": str(built),
                "request": asdict(request),
                "operator_calls": sum(facts.operator_calls.values()),
                "precision": facts.properties.get(Key.PRECISION),
            }
            (folder / "request.json").write_text(json.dumps(task, default=str))
            report = _run_child(request, folder, source=source, quiet=quiet)
            with atomic_path(output) as temporary:
                shutil.copyfile(built, temporary)
            return report
    except OSError as error:
        raise EngineBuildError(
            f"The build of {source} needs a folder for temporary files, and could not use {tempfile.gettempdir()} "
            f"({error}). Name another: TMPDIR=FOLDER."
        ) from error


def _check_output(output: Path) -> None:
    """Check, before minutes of building, that the result can be written."""
    if not output.parent.is_dir():
        raise UsageError(f"Folder {output.parent} does not exist. Create it first: mkdir -p {output.parent}")
    if output.is_dir():
        raise UsageError(f"Invalid output ({output}): it is a folder. Name a file in it: -o {output / 'model.engine'}")
    if not os.access(output.parent, os.W_OK):
        raise UsageError(f"Folder {output.parent} cannot be written. Choose another -o.")


def _run_child(request: BuildRequest, folder: Path, *, source: str, quiet: bool) -> BuildReport:
    said: list[str] = []
    with (folder / "stderr").open("w+b") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.engine_child", str(folder / "request.json")],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=parser_environment(request.flavor, folder / "links"),
        )
        try:
            with _Bar(quiet) as bar:
                for event in _events(child):
                    if "progress" in event:
                        bar.show(*event["progress"])
                    elif "report" in event:
                        report = BuildReport(**event["report"])
                        child.wait()
                        return report
                    elif "unavailable" in event:
                        raise BackendUnavailableError(event["unavailable"])
                    elif "refused" in event:
                        raise EngineBuildError(event["refused"])
                    elif "said" in event:
                        said.append(event["said"])
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        errors.seek(0)
        said += errors.read().decode(errors="replace").strip().splitlines()[-3:]
    raise EngineBuildError(failure(request, said, source=source, status=child.returncode))


def failure(request: BuildRequest, said: list[str], *, source: str, status: int) -> str:
    """Return the message of a build that TensorRT did not finish: what it said, and what to do."""
    name = NAMES[request.flavor]
    quoted = "\n".join(f"  {line}" for line in (_ours(said) or said)[-6:]) or f"  (nothing; exit status {status})"
    if request.plugin is None:
        advice = (
            f"Without the plugin {name} builds the graph operators from their bodies, and could not. Build the plugin "
            f"({build_command()}) and leave out --no-plugin."
        )
    elif any("compute capab" in line.lower() for line in said):
        advice = f"Give another --compute-capability; {name} supports those that its message names."
    else:
        advice = "Check the profile (--min, --opt, --max); if it is right, report this with the model."
    return f"{name} could not build an engine of {source}; nothing was written. It said:\n{quoted}\n{advice}"


def _ours(said: list[str]) -> list[str]:
    """Return what the plugins said: the cause; TensorRT's own lines are its consequences."""
    return [line for line in said if line.startswith("ignn::")]


def _events(child: subprocess.Popen[bytes]) -> Iterator[dict]:
    assert child.stdout is not None
    for line in child.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # a library's own words
            continue
        if isinstance(event, dict):
            yield event


class _Bar:
    """TensorRT's progress as a bar: the outermost phase, the inner one beside it."""

    def __init__(self, quiet: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(disable=True if quiet else None, unit="step", leave=False, file=sys.stderr)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, outer: bool, phase: str, step: int, steps: int) -> None:
        if outer:
            self._bar.set_description(phase, refresh=False)
            self._bar.total, self._bar.n = steps, step
        else:
            self._bar.set_postfix_str(f"{phase} {step}/{steps}", refresh=False)
        self._bar.refresh()


def read_request(path: Path) -> tuple[BuildRequest, dict]:
    """Read the request that `build_engine` wrote, and all beside it."""
    task = json.loads(path.read_text())
    values = task["request"]
    profile = Profile(**{name: tuple(size) for name, size in values.pop("profile").items()})
    paths = {key: None if values[key] is None else Path(values[key]) for key in ("plugin", "timing_cache")}
    return BuildRequest(**(values | paths | {"profile": profile})), task

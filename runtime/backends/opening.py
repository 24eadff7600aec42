"""Find the model file that a user names, and open it with the backend that the user names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..clone import install_command
from ..errors import BackendUnavailableError, EngineError, ModelNotFoundError, UsageError
from ..models import find_model
from . import Backend
from .tensorrt_library import FLAVORS, Flavor, check_flavor

if TYPE_CHECKING:
    from .ort import Provider
    from .trt import TrtBackend

BACKENDS = ("ort", *FLAVORS)

MOST_THREADS = 1024
"""Most CPU threads of one run: each is started, and takes memory, whether there is a core for it or not."""


def find_model_file(model: str | os.PathLike[str] | None) -> tuple[Path, str, str]:
    """Return the model's file, its name in messages, and its SHA-256 in hex.

    Raises:
        ModelNotFoundError: there is no such file or bundled model.
        ModelChecksumError: a bundled model is not the file that was published.
    """
    if model is None or ("/" not in str(model) and Path(model).suffix == ""):
        bundled = find_model(None if model is None else str(model))
        return bundled.checked_path(), bundled.file, bundled.sha256
    try:
        with Path(model).open("rb") as file:
            return Path(model), str(model), hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotFoundError(
            f"There is no model file {model} that can be read ({error.strerror}). Make one with `ignn export`, or "
            "leave out --model for the bundled one (`ignn models` lists them)."
        ) from error


def open_engine(
    engine: str | os.PathLike[str],
    model: str | os.PathLike[str] | None,
    backend: str,
    device: int,
    scale: int | None,
    value_range: str | None,
) -> tuple[TrtBackend, str]:
    """Return a backend that has the engine of `ignn build` or `trtexec` loaded, and the engine's SHA-256 in hex.

    What the runtime must know of the network is in the JSON that `ignn build` writes beside the engine; without it, in
    the ONNX file `model`.

    Raises:
        EngineError: the engine cannot be read, is of another GPU, TensorRT or model, or its network is unknown.
        BackendUnavailableError: TensorRT, a package that calls CUDA, the plugin library or the device is missing.
    """
    from .engine_file import read_engine_facts
    from .trt import TrtBackend

    try:
        content = Path(engine).read_bytes()
    except OSError as error:
        raise EngineError(
            f"There is no engine {engine} that can be read ({error.strerror}). Make one with `ignn build`."
        ) from error
    facts = read_engine_facts(Path(engine), content)
    flavor: Flavor = check_flavor(backend) if backend in FLAVORS else facts.flavor if facts else "tensorrt"
    if facts is not None and flavor != facts.flavor:
        raise EngineError(f"{engine} was {facts.built_by}; backend {backend!r} cannot run it. Leave out the backend.")
    if model is None:
        if facts is None:
            raise EngineError(
                f"There is no {Path(engine).name}.json beside {engine}, which `ignn build` writes. Name the ONNX file "
                "that the engine was built from: --model M.onnx, in Python SuperResolver('M.onnx', engine=...)."
            )
        onnx, source = b"", str(engine)
    else:
        path, source, sha256 = find_model_file(model)
        if facts is not None and facts.model_sha256 != sha256:
            raise EngineError(
                f"{engine} was {facts.built_by}, which is not {source}. Leave out the model, or build an engine of it: "
                f"ignn build {path} -o {engine}"
            )
        onnx = path.read_bytes()
    opened = TrtBackend(
        onnx, source=source, flavor=flavor, engine=content, device=device, facts=facts, scale=scale,
        value_range=value_range,
    )  # fmt: skip
    return opened, hashlib.sha256(content).hexdigest()


def tile_for(backend: Backend, halo: int | None) -> int | None:
    """Return the largest tile that a bounded input has room for, with its context; None where none is, or no bound."""
    if backend.largest_input is None:
        return None
    side = min(backend.largest_input) - 2 * (backend.metadata.halo if halo is None else halo)
    multiple = backend.metadata.tile_multiple
    return side // multiple * multiple or None if side > 0 else None


def open_backend(
    path: Path,
    source: str,
    backend: str,
    providers: Sequence[Provider] | None,
    threads: int | None,
    scale: int | None,
    value_range: str | None,
    device: int = 0,
) -> Backend:
    """Return a backend that has the model loaded. The arguments are those of `SuperResolver`.

    Raises:
        UsageError: no such backend, or options that it does not take.
        BackendUnavailableError: its library is not installed.
        ModelLoadError, ModelMetadataError: the file is not a model, or does not say what is needed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"Invalid backend ({backend!r}). Supported values are {', '.join(map(repr, BACKENDS))}.")
    if backend in FLAVORS:
        if providers is not None or threads is not None:
            raise UsageError(f"providers and threads are ONNX Runtime's; leave them out for backend {backend!r}.")
        from .trt import TrtBackend

        return TrtBackend(
            path.read_bytes(),
            source=source,
            flavor=check_flavor(backend),
            device=device,
            scale=scale,
            value_range=value_range,
        )
    if device != 0:
        raise UsageError(
            "device is for the TensorRT backends; of ONNX Runtime: providers=[('cuda', {'device_id': 1})]."
        )
    try:
        from .ort import OrtBackend
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime cannot be imported ({error}). Install it with: {install_command('cpu')}\n"
            f"With an NVIDIA GPU: {install_command('gpu')}"
        ) from error
    return OrtBackend(path, source=source, providers=providers, threads=threads, scale=scale, value_range=value_range)

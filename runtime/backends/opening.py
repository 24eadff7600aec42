"""Find the model file that a user names, and open it with the backend that the user names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clone import install_command
from ..errors import BackendUnavailableError, EngineError, ModelNotFoundError, UsageError
from ..models import find_model
from . import Backend
from .tensorrt_library import FLAVORS, Flavor, check_flavor

if TYPE_CHECKING:
    from .ort import Provider
    from .trt import TrtBackend

BACKENDS = ("ort", *FLAVORS, "openvino")

ON_NVIDIA = ("cuda", "tensorrt", "tensorrt-rtx")
"""Providers of ONNX Runtime that take the index of an NVIDIA GPU."""

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


def check_device(backend: str, device: int | str | None, *, engine: bool) -> None:
    """Check what `SuperResolver` was given as the device, for the backend or an engine.

    Raises:
        UsageError: it is not of the kind that the backend takes.
    """
    if device is None:
        return
    if backend == "openvino" and not engine:
        if not isinstance(device, str):
            raise UsageError(f"Invalid device ({device!r}). Of OpenVINO CPU, GPU, and GPU.0, GPU.1 ... are supported.")
    elif type(device) is not int or device < 0:
        raise UsageError(f"Invalid device ({device!r}). Whole numbers from 0 are supported; `ignn doctor` lists GPUs.")


def open_backend(
    path: Path,
    source: str,
    backend: str,
    providers: Sequence[Provider] | None,
    threads: int | None,
    scale: int | None,
    value_range: str | None,
    device: int | str | None = None,
    precision: str | None = None,
) -> Backend:
    """Return a backend that has the model loaded. The arguments are those of `SuperResolver`, checked as it does.

    Raises:
        UsageError: no such backend, or options that it does not take.
        BackendUnavailableError: its library is not installed.
        ModelLoadError, ModelMetadataError: the file is not a model, or does not say what is needed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"Invalid backend ({backend!r}). Supported values are {', '.join(map(repr, BACKENDS))}.")
    foreign: dict[str, Any] = {"scale": scale, "value_range": value_range}
    if backend != "ort" and providers is not None:
        raise UsageError(f"providers are ONNX Runtime's; leave them out for backend {backend!r}.")
    if backend == "openvino":
        from .ov import OpenVinoBackend

        name = None if device is None else str(device)
        return OpenVinoBackend(path, source=source, device=name, precision=precision, threads=threads, **foreign)
    if precision is not None:
        raise UsageError(
            f"precision is OpenVINO's; leave it out for backend {backend!r}, which computes in the file's own: "
            "`ignn export --precision fp16` makes one in float16."
        )
    number = 0 if device is None else int(device)
    if backend in FLAVORS:
        if threads is not None:
            raise UsageError(f"threads are the CPU's; leave them out for backend {backend!r}.")
        from .trt import TrtBackend

        return TrtBackend(path.read_bytes(), source=source, flavor=check_flavor(backend), device=number, **foreign)
    if device is not None:
        providers = _on_device(providers, number)
    try:
        from .ort import OrtBackend
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime cannot be imported ({error}). Install it with: {install_command('cpu')}\n"
            f"With an NVIDIA GPU: {install_command('gpu')}"
        ) from error
    return OrtBackend(path, source=source, providers=providers, threads=threads, **foreign)


def _on_device(providers: Sequence[Provider] | None, device: int) -> list[Provider]:
    """Return ONNX Runtime's providers with the index of the NVIDIA GPU, for those that run on one.

    Raises:
        UsageError: none of them does, or one says its own.
    """
    chosen: list[Provider] = []
    for provider in providers or ():
        name, options = (provider, {}) if isinstance(provider, str) else provider
        if name in ON_NVIDIA:
            if "device_id" in options:
                raise UsageError("device and the provider's device_id say the same thing. Leave out one of them.")
            chosen.append((name, {**options, "device_id": str(device)}))
        else:
            chosen.append(provider)
    if not any(isinstance(provider, tuple) and "device_id" in provider[1] for provider in chosen):
        raise UsageError(
            f"device is the index of an NVIDIA GPU, and ONNX Runtime was not told to use one. Say so: --provider cuda "
            f"--device {device}, in Python providers=['cuda'], device={device}."
        )
    return chosen

"""Find the model file that a user names, and open it with the backend that the user names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..clone import install_command
from ..errors import BackendUnavailableError, ModelNotFoundError, UsageError
from ..models import find_model
from . import Backend
from .tensorrt_library import FLAVORS, check_flavor

if TYPE_CHECKING:
    from .ort import Provider

BACKENDS = ("ort", *FLAVORS)


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


def open_backend(
    path: Path,
    source: str,
    backend: str,
    providers: Sequence[Provider] | None,
    threads: int | None,
    scale: int | None,
    value_range: str | None,
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
            path.read_bytes(), source=source, flavor=check_flavor(backend), scale=scale, value_range=value_range
        )
    try:
        from .ort import OrtBackend
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime cannot be imported ({error}). Install it with: {install_command('cpu')}\n"
            f"With an NVIDIA GPU: {install_command('gpu')}"
        ) from error
    return OrtBackend(path, source=source, providers=providers, threads=threads, scale=scale, value_range=value_range)

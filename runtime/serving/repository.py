"""A model repository of NVIDIA Triton: for each network one model that takes arrays, and one that takes files.

    <name>         `lr` uint8 (N, H, W, 3) RGB 0..255 -> `sr` uint8 (N, scale * H, scale * W, 3)
    <name>-file    `file` the bytes of a picture, `options` JSON (may be left out) -> `enlarged` the bytes of a picture
    <name>-engine  `lr` float32 (N, 3, H, W) RGB 0..255 -> `sr` float32: a TensorRT engine, run by Triton itself

The first two run `model.py`, which imports this package: it must be installed where the server runs.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..backends.onnx_file import read_facts
from ..backends.opening import MOST_THREADS, find_model_file
from ..errors import ImageWriteError, UsageError
from ..metadata import ModelMetadata, read_metadata
from .limits import Limits

MAX_BATCH = 8
"""Most requests for arrays of one size that Triton hands over together."""

FILE_SUFFIX, ENGINE_SUFFIX = "-file", "-engine"

CODE = '''"""Written by `ignn serve`. Its code is in the package `ignn`: install that where the server runs."""

from ignn.serving.model import {name} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class ServedNetwork:
    """One network of a repository.

    Attributes:
        name: Triton's name of the array model.
        model: name of a bundled model, or the path of a file that is copied into the repository.
        fingerprint: SHA-256 of its ONNX file, in hex.
        metadata: facts about it.
    """

    name: str
    model: str
    fingerprint: str
    metadata: ModelMetadata

    @property
    def is_bundled(self) -> bool:
        return "/" not in self.model and not self.model.endswith(".onnx")


@dataclass(frozen=True)
class Service:
    """How networks are served.

    Attributes:
        limits: what requests may ask for.
        device: `cpu`, or `cuda` (instances go to the GPUs that Triton has).
        instances: processes of each model, on each GPU.
        threads: CPU threads of one process; None: all cores that it may use.
    """

    limits: Limits = field(default_factory=Limits)
    device: Literal["cpu", "cuda"] = "cpu"
    instances: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, most in (("instances", self.instances, 1 << 16), ("threads", self.threads, MOST_THREADS)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"Invalid --{name} ({value}). Supported values are whole numbers from 1 to {most}.")


def find_network(model: str) -> ServedNetwork:
    """Find a bundled model by its name, or an ONNX file by its path.

    Raises:
        ModelNotFoundError, ModelLoadError, ModelMetadataError: about the model file.
    """
    path, source, fingerprint = find_model_file(model)
    metadata = read_metadata(read_facts(path.read_bytes(), source=source).properties, source=source)
    return ServedNetwork(Path(model).stem if model.endswith(".onnx") else model, model, fingerprint, metadata)


def write_repository(folder: Path, models: Sequence[str], service: Service, *, engine: Path | None = None) -> list[str]:
    """Write a repository; return the names of its models.

    Args:
        folder: where to; it must be empty or absent.
        models: bundled names or paths of ONNX files.
        service: how they are served.
        engine: TensorRT engine of the first model, which becomes a model of its own.

    Raises:
        UsageError: two models of one name, or an engine that is no file.
        ImageWriteError: the folder is not empty, or cannot be written.
        ModelNotFoundError, ModelLoadError, ModelMetadataError: about a model file.
    """
    networks = [find_network(model) for model in models]
    names = [network.name for network in networks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"Two models are called {twice}. Give each --model another name.")
    if engine is not None and not engine.is_file():
        raise UsageError(f"There is no engine {engine}. Make one with `ignn build`.")
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ImageWriteError(f"{folder} is not empty. Give an empty or new folder.")
        for network in networks:
            written += [_write_array_model(folder, network, service), _write_file_model(folder, network, service)]
        if engine is not None:
            written.append(_write_engine(folder, networks[0], service, engine))
    except OSError as error:
        raise ImageWriteError(f"Cannot write {folder}: {error.strerror or error}. Choose another folder.") from error
    return written


def _write_array_model(folder: Path, network: ServedNetwork, service: Service) -> str:
    text = f"""name: "{network.name}"
backend: "python"
max_batch_size: {MAX_BATCH}
input [ {{ name: "lr" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [ {{ name: "sr" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
{_scheduling(service)}
model_warmup [
  {{
    name: "16 x 16"
    batch_size: 1
    inputs {{ key: "lr" value {{ data_type: TYPE_UINT8 dims: [ 16, 16, 3 ] random_data: true }} }}
  }}
]
{_parameters(network, service)}"""
    _write_model(folder / network.name, text, "ArrayModel", network)
    return network.name


def _write_file_model(folder: Path, network: ServedNetwork, service: Service) -> str:
    name = f"{network.name}{FILE_SUFFIX}"
    text = f"""name: "{name}"
backend: "python"
max_batch_size: 1
input [
  {{ name: "file" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "options" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [ {{ name: "enlarged" data_type: TYPE_STRING dims: [ 1 ] }} ]
{_scheduling(service)}
model_warmup [
  {{
    name: "16 x 16"
    batch_size: 1
    inputs {{ key: "file" value {{ data_type: TYPE_STRING dims: [ 1 ] input_data_file: "picture" }} }}
  }}
]
{_parameters(network, service)}"""
    _write_model(folder / name, text, "FileModel", network)
    warm_up = folder / name / "warmup"
    warm_up.mkdir()
    (warm_up / "picture").write_bytes(as_element(as_png(np.zeros((16, 16, 3), np.uint8))))
    return name


def _write_engine(folder: Path, network: ServedNetwork, service: Service, engine: Path) -> str:
    name = f"{network.name}{ENGINE_SUFFIX}"
    # Batches of one: within every profile.
    text = f"""name: "{name}"
platform: "tensorrt_plan"
max_batch_size: 1
input [ {{ name: "lr" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }} ]
output [ {{ name: "sr" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }} ]
dynamic_batching {{ {_queue(service.limits)} }}
instance_group [ {{ count: {service.instances} kind: KIND_GPU }} ]
"""
    place = folder / name / "1"
    place.mkdir(parents=True)
    shutil.copyfile(engine, place / "model.plan")
    (folder / name / "config.pbtxt").write_text(text, encoding="utf-8")
    return name


def _write_model(folder: Path, config: str, code: str, network: ServedNetwork) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(CODE.format(name=code), encoding="utf-8")
    if not network.is_bundled:
        shutil.copyfile(network.model, version / "network.onnx")
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")


def _scheduling(service: Service) -> str:
    # No `response_cache`: Triton keeps refusals in it, and answers the same bad picture with an empty result.
    kind = "KIND_GPU" if service.device == "cuda" else "KIND_CPU"
    return f"""dynamic_batching {{ {_queue(service.limits)} }}
instance_group [ {{ count: {service.instances} kind: {kind} }} ]"""


def _queue(limits: Limits) -> str:
    return (
        f"default_queue_policy {{ max_queue_size: {limits.queue} timeout_action: REJECT "
        f"default_timeout_microseconds: {limits.timeout_seconds * 1_000_000} }}"
    )


def _parameters(network: ServedNetwork, service: Service) -> str:
    values = {
        "model": network.model if network.is_bundled else "network.onnx",
        "scale": network.metadata.scale,
        "fingerprint": network.fingerprint,
        "device": service.device,
        "threads": service.threads or "",
        "max_pixels": service.limits.max_pixels,
        "max_bytes": service.limits.max_bytes,
    }
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(str(value))} }} }}\n'
        for key, value in values.items()
    )


def as_png(array: NDArray[np.uint8]) -> bytes:
    """Return an (H, W, 3) picture as a PNG."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def as_element(data: bytes) -> bytes:
    """Return a tensor of one string as Triton stores it: the length in 4 bytes, least first, then the string."""
    return len(data).to_bytes(4, "little") + data

"""Checkpoints: ours, and the released code's format."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.atomic import atomic_path
from runtime.errors import UsageError
from train.config import IGNNConfig
from train.errors import CheckpointError
from train.model import IGNN

FORMAT = "ignn-checkpoint-1"

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class RunState:
    """What a training run keeps beside the averaged weights, so that it can go on."""

    fit: dict[str, Any]
    """The run's `FitConfig` as a dictionary; a field that is newer than the file is missing."""
    step: int
    """Optimiser steps taken."""
    raw_weights: Weights
    """The weights that the optimiser changes, not averaged."""
    optimizer: dict[str, Any]
    """`Optimizer.state_dict()`."""
    data_sha256: str
    """Checksum of the training images."""
    versions: dict[str, str]
    """Versions of the libraries that made it, by name."""
    graph_picture: Weights
    """Weights of the second loss's convolution; empty without such a loss."""
    processes: int
    """Number of processes that shared the run."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file, read once and checked."""

    path: Path
    config: IGNNConfig
    weights: Weights
    """The network's parameters by their names, as the file stores them."""
    stage: str = "whole"
    """"whole", or "backbone": only the convolutions around the graph were trained, the graph is still random."""
    has_embedding: bool = True
    """Whether the embedding is VGG19's, not a random one that a backbone's training never used."""
    run: RunState | None = None
    """The training run that can be resumed from it, if there is one."""

    def network(self) -> IGNN:
        """Return the network, in eval mode, on the CPU, in float32."""
        net = IGNN(self.config)
        net.load_state_dict(self.weights)
        return net.float().eval()


def save_checkpoint(
    net: IGNN, path: str | os.PathLike[str], *, stage: str = "whole", run: RunState | None = None
) -> None:
    """Write weights and configuration; the file appears whole or not at all.

    Args:
        net: the network.
        path: file to write, conventionally `*.pt`.
        stage: "whole" or "backbone" (see `Checkpoint.stage`); of a run, it is the run's own.
        run: what is needed to resume the training.

    Raises:
        WriteError: the file cannot be written.
    """
    content: dict[str, Any] = {"format": FORMAT, "config": net.config.to_dict(), "weights": net.state_dict()}
    if run is not None:
        content |= {item.name: getattr(run, item.name) for item in fields(run)}
    elif stage == "backbone":
        content["fit"] = {"stage": stage, "embedding": ""}
    with atomic_path(Path(path)) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # PyTorch's writer says so, of a full disk
            raise OSError(str(error)) from error


def load_checkpoint(path: str | os.PathLike[str]) -> IGNN:
    """Load a network, in eval mode, on the CPU, in float32.

    Args:
        path: as in `read_checkpoint`.

    Raises:
        CheckpointError: as in `read_checkpoint`.
    """
    return read_checkpoint(path).network()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; reading never runs code from the file.

    Args:
        path: a checkpoint of ours, or one in the released code's format (`{"net_state_dict": ...}`, parameters with
            or without `module.`); of the latter, scale and widths are read from the shapes and the rest (residual
            scale 0.1, 5 neighbors, window 30) is the released network's.

    Raises:
        CheckpointError: the file is missing, truncated or holds something else; the message says what.
    """
    path = Path(path)
    content = read_weights(path)
    if content.get("format") == FORMAT:
        checkpoint = _read_ours(path, content)
    elif "net_state_dict" in content:
        config, weights = _convert_released(path, _tensors(path, content, "net_state_dict"))
        checkpoint = Checkpoint(path, config, weights)
    else:
        keys = ", ".join(str(key) for key in list(content)[:5])
        raise CheckpointError(
            f"Checkpoint {path} is no IGNN: it holds the keys {keys or '(none)'}. "
            f"Expected 'format' = '{FORMAT}' or the released 'net_state_dict'."
        )
    _check_weights(checkpoint)
    return checkpoint


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the dictionary that a file of `torch.save` holds, unchecked; reading never runs code from the file.

    Raises:
        CheckpointError: the file is missing, or `torch.save` did not write it, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"Checkpoint {path} {what}. Give the path of a .pt or .pth file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # PyTorch raises nearly anything on other files
        raise CheckpointError(f"Checkpoint {path} cannot be read: {_describe(path)}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Checkpoint {path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def _read_ours(path: Path, content: dict[str, Any]) -> Checkpoint:
    config = content.get("config")
    if not isinstance(config, dict):
        raise CheckpointError(f"Checkpoint {path} has no network configuration ('config'). Give another file.")
    try:
        network = IGNNConfig.from_dict(config)
    except UsageError as error:
        raise CheckpointError(f"Checkpoint {path} is of a network that this version does not know: {error}") from error
    fit = content.get("fit", {})
    if not isinstance(fit, dict):
        raise CheckpointError(f"Checkpoint {path} has a damaged training run ('fit'). Give another file.")
    stage = fit.get("stage", "whole")
    return Checkpoint(
        path,
        network,
        _tensors(path, content, "weights"),
        stage,
        has_embedding=stage == "whole" or bool(fit.get("embedding")),
        run=_read_run(path, content) if "raw_weights" in content else None,
    )


def _read_run(path: Path, content: dict[str, Any]) -> RunState:
    content = {"graph_picture": {}, "processes": 1, **content}  # newer than the oldest checkpoints
    missing = [item.name for item in fields(RunState) if item.name not in content]
    if missing:
        raise CheckpointError(f"Checkpoint {path} lacks {', '.join(missing)} of its training run. Give another file.")
    return RunState(**{item.name: content[item.name] for item in fields(RunState)})


def _tensors(path: Path, content: dict[str, Any], key: str) -> Weights:
    weights = content.get(key)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"Checkpoint {path} has no weights: '{key}' is not a dictionary of tensors.")
    return weights


def _check_weights(checkpoint: Checkpoint) -> None:
    """Raise unless the weights are those of the configuration's network, by their names and shapes."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in IGNN(checkpoint.config).state_dict().items()}
    found = {name: value.shape for name, value in checkpoint.weights.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not of this network" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name])}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"Checkpoint {checkpoint.path} does not hold an IGNN's weights: {'; '.join(problems[:3])}{more}."
        )


def _convert_released(path: Path, weights: Weights) -> tuple[IGNNConfig, Weights]:
    """Return configuration and our parameter names for a released state dictionary."""
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    needed = {"head.0.weight": 4, "upsample.0.weight": 4, "vggnet.model.0.weight": 4}
    missing = [key for key, axes in needed.items() if key not in weights or weights[key].ndim != axes]
    if missing:
        raise CheckpointError(
            f"Checkpoint {path} has the released format without {', '.join(missing)}: another network's weights?"
        )
    channels = weights["head.0.weight"].shape[0]
    graph_scale = round((weights["upsample.0.weight"].shape[0] / max(1, channels)) ** 0.5)
    before = _count(weights, r"body1\.(\d+)\.body")
    try:
        config = replace(
            IGNNConfig.preset("ignn"),
            scale=4 if "tail.1.0.weight" in weights else graph_scale,
            channels=channels,
            blocks=before + _count(weights, r"body2\.(\d+)\.body"),
            graph_after=before,
        )
    except UsageError as error:
        raise CheckpointError(f"Checkpoint {path} does not hold an IGNN's weights: {error}") from error
    # The embedding is stored twice (network and graph); the mean shifts are constants of ours.
    dropped = ("graph.embedcnn.", "sub_mean.", "add_mean.")
    converted = {
        key.replace("vggnet.", "embedding."): value for key, value in weights.items() if not key.startswith(dropped)
    }
    return config, converted


def _count(weights: Weights, pattern: str) -> int:
    return len({match.group(1) for key in weights if (match := re.match(pattern, key))})


def _describe(path: Path) -> str:
    """Say what a file that is no checkpoint seems to be."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        return "it is empty"
    if head.startswith(b"PK"):
        return "it is an archive, but not of weights alone" if zipfile.is_zipfile(path) else "it is a truncated archive"
    kinds = {
        b"\x89PNG": "a PNG image",
        b"\xff\xd8": "a JPEG image",
        b"\x08": "possibly an ONNX file",
        b"<": "a web page or XML",
    }
    kind = next(
        (name for magic, name in kinds.items() if head.startswith(magic)), "not a PyTorch file, or a truncated one"
    )
    return f"it is {kind} ({path.stat().st_size} bytes)"

"""Checkpoints: ours, and the released code's format."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.config import IGNNConfig
from train.model import IGNN
from train.whole_file import whole_file

FORMAT = "ignn-checkpoint-1"

_Released = dict[str, Tensor]


class CheckpointError(ValueError):
    """The file is not a checkpoint that holds an IGNN; the message says what it is instead."""


def save_checkpoint(net: IGNN, path: str | os.PathLike[str], **extra: Any) -> None:
    """Write weights and configuration; the file appears whole or not at all.

    Args:
        net: the network.
        path: file to write, conventionally `*.pt`.
        extra: what else to keep: tensors, numbers, strings, and lists and dictionaries of them.
    """
    with whole_file(Path(path)) as temporary:
        torch.save({"format": FORMAT, "config": net.config.to_dict(), "weights": net.state_dict(), **extra}, temporary)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a checkpoint file holds, unchecked; reading never runs code from the file.

    Raises:
        CheckpointError: if it is no file that `torch.save` wrote.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"Checkpoint {path} {what}. Give the path of a .pt or .pth file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {_describe(path)}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"Checkpoint {path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def is_backbone(path: str | os.PathLike[str]) -> bool:
    """Return whether a checkpoint is of the backbone stage of training, whose graph is still random."""
    return bool(read_checkpoint(path).get("fit", {}).get("stage") == "backbone")


def load_checkpoint(path: str | os.PathLike[str]) -> IGNN:
    """Load a network, in eval mode, on the CPU, in float32.

    Args:
        path: a checkpoint of ours, or one in the released code's format (`{"net_state_dict": ...}`, parameters with
            or without `module.`); of the latter, scale and widths are read from the shapes and the rest (residual
            scale 0.1, 5 neighbors, window 30) is the released network's.

    Raises:
        CheckpointError: if the file is missing, truncated or holds something else; the message says what.
    """
    content = read_checkpoint(path)
    try:
        if content.get("format") == FORMAT:
            net = IGNN(IGNNConfig.from_dict(content["config"]))
            net.load_state_dict(content["weights"])
        elif "net_state_dict" in content:
            config, weights = _convert_released(content["net_state_dict"])
            net = IGNN(config)
            net.load_state_dict(weights)
        else:
            keys = ", ".join(str(key) for key in list(content)[:5])
            raise CheckpointError(
                f"Checkpoint {path} is no IGNN: it holds the keys {keys or '(none)'}. "
                f"Expected 'format' = '{FORMAT}' or the released 'net_state_dict'."
            )
    except CheckpointError:
        raise
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"Checkpoint {path} does not hold an IGNN's weights: {error}") from error
    return net.float().eval()


def _convert_released(weights: _Released) -> tuple[IGNNConfig, _Released]:
    """Return configuration and our parameter names for a released state dictionary."""
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    missing = [key for key in ("head.0.weight", "upsample.0.weight", "vggnet.model.0.weight") if key not in weights]
    if missing:
        raise CheckpointError(f"The released format without {', '.join(missing)}: another network's weights?")
    channels = weights["head.0.weight"].shape[0]
    graph_scale = round((weights["upsample.0.weight"].shape[0] / channels) ** 0.5)
    before = _count(weights, r"body1\.(\d+)\.body")
    config = replace(
        IGNNConfig.preset("ignn"),
        scale=4 if "tail.1.0.weight" in weights else graph_scale,
        channels=channels,
        blocks=before + _count(weights, r"body2\.(\d+)\.body"),
        graph_after=before,
    )
    # The embedding is stored twice (network and graph); the mean shifts are constants of ours.
    dropped = ("graph.embedcnn.", "sub_mean.", "add_mean.")
    converted = {
        key.replace("vggnet.", "embedding."): value for key, value in weights.items() if not key.startswith(dropped)
    }
    return config, converted


def _count(weights: _Released, pattern: str) -> int:
    return len({match.group(1) for key in weights if (match := re.match(pattern, key))})


def _describe(path: Path) -> str:
    """Say what a file that is no checkpoint seems to be."""
    head = path.read_bytes()[:8]
    if not head:
        return "it is empty"
    if head.startswith(b"PK"):
        return (
            "it is a truncated archive"
            if not zipfile.is_zipfile(path)
            else "it is an archive, but not of weights alone"
        )
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

"""One training run as data: defaults, a TOML file, flags."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from runtime.errors import UsageError
from train.config import IGNNConfig

EMBEDDED = ("graphagg", "same-scale")
"""Graphs that match patches in VGG19's embedding, and whose features are fused into the backbone's."""


@dataclass(frozen=True)
class FitConfig:
    """One training run; every field is a key of the TOML file and a flag of the same name.

    The defaults are the paper's recipe. `network` is a table in the file and `--network KEY=VALUE` as a flag.

    Raises:
        UsageError: a value is outside what the field accepts.
    """

    data: str = ""
    """Folder of photographs."""
    output: str = "runs/ignn"
    """Folder for the checkpoint (last.pt), the log (log.jsonl) and TensorBoard's files."""
    copies: tuple[float, ...] = ()
    """Factors, below 1, of reduced copies to train on beside every photograph: they hold finer structures."""
    preset: str = "ignn"
    """Network preset: "ignn" (the paper's), "ignn-s" or "ignn-e"."""
    scale: int = 2
    """Upscaling factor: 2, 3 or 4."""
    network: dict[str, Any] = field(default_factory=dict)
    """Fields of the network to change, e.g. window=10 (see train.config)."""
    stage: str = "whole"
    """"backbone" trains plain EDSR, what the whole network is initialised from; "whole" trains everything; "graph" the
    graph and what fuses it in alone, on a backbone that stays as `start` has it."""
    start: str = ""
    """Checkpoint whose weights to start from, of the same or another scale; parameters that do not fit stay random."""
    embedding: str = ""
    """File of VGG19 conv1 weights (torchvision's names), needed unless `start` was trained with them."""
    steps: int = 800_000
    """Optimiser steps."""
    batch: int = 4
    """Patches per step and process."""
    patch: int = 60
    """Side of an LR patch in pixels."""
    augment: bool = False
    """Beside flips and turns, vary the patches' contrast and order of colors and blend pairs (train.augment)."""
    learning_rate: float = 1e-4
    """Adam's peak learning rate."""
    muon: float = 0.0
    """Peak learning rate of Muon, which then takes the convolutions between feature maps (train.optimizer); 0: Adam."""
    loss: str = "l1"
    """"l1", or "psnr": the mean of each patch's 10 log10(MSE + 1)."""
    graph_loss: float = 0.0
    """Weight of a second L1 loss, of a picture that one convolution makes of the graph's HR features alone; 0: none.
    The convolution is dropped after training. It gives the graph a gradient before the fusions read it."""
    warmup: int = 0
    """Steps of linear warm-up."""
    schedule: str = "halving"
    """"halving" every `period` steps, or "cosine" with warm restarts every `period` steps."""
    period: int = 200_000
    """Steps between halvings or restarts."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones kept in the checkpoint; 0 turns averaging off."""
    clip: float = 0.0
    """Largest gradient norm; 0 turns clipping off."""
    bf16: bool = False
    """Run convolutions in bfloat16 (autocast); weights, loss and the graph stay float32."""
    device: str = "auto"
    """"auto" (the GPU if there is one), "cpu" or "cuda"."""
    workers: int = 1
    """Threads that cut patches ahead of the network; the batches are the same for any number."""
    validation: str = ""
    """Folder of HR images to validate on; empty: images held out of `data`."""
    held_out: int = 10
    """Images of `data` to validate on, the last by name (at most a quarter of them); 0 with no `validation`: none."""
    validate_every: int = 5000
    """Steps between validations."""
    log_every: int = 100
    """Steps between lines of the log."""
    tensorboard: bool = True
    """Write TensorBoard scalars, and validation crops beside bicubic and the truth."""
    save_every: int = 500
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of weights and patches."""
    time_limit: float = 0.0
    """Minutes after which to save and stop; 0 is no limit."""

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        choices = {
            "stage": ("backbone", "whole", "graph"),
            "schedule": ("halving", "cosine"),
            "loss": ("l1", "psnr"),
        }
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise UsageError(
                    f"Invalid {name} ({getattr(self, name)!r}). Supported values are {', '.join(accepted)}."
                )
        for factor in self.copies:
            if not 0 < factor < 1:
                raise UsageError(f"Invalid copies ({factor}). Each factor must be above 0 and below 1.")
        for name in ("batch", "patch", "period", "workers", "validate_every", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"Invalid {name} ({getattr(self, name)}). It must be at least 1.")
        for name in ("steps", "warmup", "muon", "graph_loss", "clip", "held_out", "time_limit", "seed"):
            if getattr(self, name) < 0:
                raise UsageError(f"Invalid {name} ({getattr(self, name)}). It must be at least 0.")
        if not 0 <= self.ema < 1:
            raise UsageError(f"Invalid ema ({self.ema}). It must be at least 0 and below 1.")
        if not self.learning_rate > 0:
            raise UsageError(f"Invalid learning_rate ({self.learning_rate}). It must be above 0.")
        if self.graph_loss and (self.stage == "backbone" or self.net.graph != "graphagg"):
            raise UsageError(
                f"Invalid graph_loss ({self.graph_loss}). Only the network with graph = graphagg has HR features "
                "of a graph; use 0."
            )
        if self.stage == "graph" and (self.net.graph not in ("errors", *EMBEDDED) or not self.start):
            raise UsageError(
                f"Invalid stage ('graph') with graph = {self.net.graph!r} and start = {self.start!r}. It trains the "
                f"graph (errors, {', '.join(EMBEDDED)}) on a finished backbone: --network graph=errors "
                "--start BACKBONE.pt"
            )
        if not self.data:
            raise UsageError("Invalid data (''). Give the folder of photographs: --data FOLDER.")
        if self.patch < self.net.minimum_size:
            raise UsageError(
                f"Invalid patch ({self.patch}). This network needs at least {self.net.minimum_size} pixels."
            )

    @property
    def net(self) -> IGNNConfig:
        """Configuration of the network to train."""
        return IGNNConfig.preset(self.preset, scale=self.scale, **self.network)

    @property
    def graph_is_new(self) -> bool:
        """Whether a graph is trained whose fusions a backbone does not have."""
        return self.stage != "backbone" and self.net.graph in EMBEDDED


def parse_config(argv: list[str] | None) -> FitConfig:
    """Read flags over `--config` file over defaults.

    Raises:
        UsageError: the file cannot be read, a key of it is unknown, or a value is of the wrong type or out of range.
    """
    types = get_type_hints(FitConfig)
    parser = argparse.ArgumentParser(
        prog="ignn train", description="Train an IGNN. Resumes if the output folder holds a run."
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file with the keys below; flags win over it")
    for item in fields(FitConfig):
        flag = "--" + item.name.replace("_", "-")
        if item.name == "network":
            parser.add_argument(flag, action="append", metavar="KEY=VALUE", default=argparse.SUPPRESS)
        elif item.name == "copies":
            parser.add_argument(flag, nargs="*", type=float, metavar="FACTOR", default=argparse.SUPPRESS)
        elif types[item.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(
                flag, type=types[item.name], default=argparse.SUPPRESS, help=f"default: {item.default or 'none'}"
            )
    flags = vars(parser.parse_args(argv))
    path = flags.pop("config")
    values = _read_file(path) if path else {}
    if "copies" in flags:
        flags["copies"] = tuple(flags["copies"])
    if "network" in flags:
        flags["network"] = values.get("network", {}) | dict(map(_parse_assignment, flags["network"]))
    return FitConfig(**{**values, **flags})


def _read_file(path: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # the second: not TOML, or not UTF-8
        raise UsageError(f"Configuration {path} cannot be read: {error}.") from error
    types = get_type_hints(FitConfig)
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise UsageError(f"Unknown key ({', '.join(unknown)}) in {path}. Keys are {', '.join(sorted(types))}.")
    for name, value in values.items():
        if name == "copies" and type(value) is list and all(type(factor) is float for factor in value):
            values[name] = tuple(value)
            continue
        expected = dict if name == "network" else types[name]
        if expected is float and type(value) is int:
            values[name] = float(value)
        elif type(value) is not expected:
            raise UsageError(f"Invalid {name} ({value!r}) in {path}. It must be of type {expected.__name__}.")
    return values


def _parse_assignment(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except ValueError:  # a bare word is a string
        return key.strip(), value.strip()

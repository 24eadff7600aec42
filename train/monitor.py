"""What a person sees of a run: progress bar, log.jsonl, validation, TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from runtime.atomic import write_text
from runtime.clone import install_command
from runtime.errors import UsageError, WriteError
from train.data import PatchSource, list_images, make_lr, read_rgb
from train.errors import TrainingError
from train.fit_config import FitConfig
from train.metrics import psnr, to_uint8
from train.model import IGNN
from train.resize import upsample_uint8

_SIDE = 192
"""Longest side of what is validated of an image, in LR pixels: its center."""
_PICTURES, _PICTURE_SIDE = 4, 64
"""Validation pictures, and their side in LR pixels."""

Image = NDArray[np.uint8]


class Validation:
    """A fixed set of images to measure a network on while it trains."""

    def __init__(self, config: FitConfig, source: PatchSource) -> None:
        pairs: list[tuple[Image, Image]] = []
        if config.validation:
            pairs = [make_lr(read_rgb(path), config.scale) for path in list_images(config.validation)]
        else:
            pairs = [source.image(number) for number in source.validation_images]
        self.pairs = [_center(lr, hr, config.scale, _SIDE) for lr, hr in pairs]
        self.scale, self.stage = config.scale, config.stage

    @torch.inference_mode()
    def measure(self, net: IGNN) -> tuple[float, list[Image]]:
        """Return the mean PSNR on luma in dB and pictures: bicubic, network and truth side by side."""
        values: list[float] = []
        pictures: list[Image] = []
        device = next(net.parameters()).device
        for lr, hr in self.pairs:
            tensor = torch.from_numpy(np.array(lr)).to(device).permute(2, 0, 1)[None].float()
            output = net.forward_backbone(tensor) if self.stage == "backbone" else net(tensor)
            sr = to_uint8(output[0].permute(1, 2, 0).float().cpu().numpy())
            values.append(psnr(sr, hr, self.scale))
            if len(pictures) < _PICTURES:
                parts = [upsample_uint8(lr, self.scale), sr, hr]
                pictures.append(np.hstack([_center(lr, part, self.scale, _PICTURE_SIDE)[1] for part in parts]))
        return float(np.mean(values)), pictures


class Monitor:
    """Writes what happens; one per run, in the process of rank 0.

    Args:
        config: of the run.
        first_step: step it starts or resumes at; records of later steps, from before a kill, are dropped.
        processes: how many share the run, for the count of images.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
        WriteError: the log cannot be written.
    """

    def __init__(self, config: FitConfig, first_step: int, processes: int) -> None:
        self._images_per_step = config.batch * processes
        self._first_step, self._started = first_step, time.perf_counter()
        self._log = Path(config.output) / "log.jsonl"
        records = self._log.read_text().splitlines(keepends=True) if self._log.exists() else []
        kept = [line for line in records if line.endswith("\n") and json.loads(line)["step"] <= first_step]
        write_text(self._log, "".join(kept))
        self._board = _open_board(config, first_step) if config.tensorboard else None
        interval = 1 if sys.stderr.isatty() else 30
        self._bar = tqdm(total=config.steps, initial=first_step, unit="step", mininterval=interval, dynamic_ncols=True)
        self._shown: dict[str, str] = {}
        self._smooth_loss = 0.0

    def progress(self, step: int, losses: list[float], seconds_waiting: float) -> None:
        """Show the steps up to `step`, whose losses these are."""
        for loss in losses:
            self._smooth_loss = 0.98 * self._smooth_loss + 0.02 * loss if self._smooth_loss else loss
        seconds = time.perf_counter() - self._started
        self.images_per_second = (step - self._first_step) * self._images_per_step / seconds
        self.share_waiting = seconds_waiting / seconds
        self._shown |= {
            "loss": f"{self._smooth_loss:.3f}",
            "images/s": f"{self.images_per_second:.1f}",
            "waiting": f"{self.share_waiting:.1%}",
        }
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(step - self._bar.n)

    def record(self, step: int, **values: float) -> None:
        """Add a line to the log and points to TensorBoard's curves."""
        try:
            with self._log.open("a") as log:
                log.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise WriteError(f"Cannot write {self._log}: {error.strerror or error}. Make room there.") from error
        for name, value in values.items():
            if self._board:
                self._board.add_scalar(name, value, step)

    def record_validation(self, step: int, value: float, pictures: list[Image], shares: dict[str, float]) -> None:
        """Record a validation's PSNR in dB, its pictures, and the graph's share of the fusions' weights."""
        self._shown["PSNR"] = f"{value:.2f}"
        self.record(step, psnr=value, **{f"graph_share_{fusion}": share for fusion, share in shares.items()})
        for number, picture in enumerate(pictures):
            if self._board:
                self._board.add_image(f"bicubic, network, truth/{number}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Finish the bar and TensorBoard's file."""
        self._bar.close()
        if self._board:
            self._board.close()


def check_finite(losses: Tensor, first_step: int) -> list[float]:
    """Return losses as numbers.

    Raises:
        TrainingError: one is not finite; the message says what to change.
    """
    values: list[float] = losses.tolist()
    for step, value in enumerate(values, first_step):
        if not np.isfinite(value):
            raise TrainingError(
                f"Loss is {value} at step {step}. The last good checkpoint is kept: lower --learning-rate, "
                "or set --clip, and run the command again."
            )
    return values


def _center(lr: Image, hr: Image, scale: int, side: int) -> tuple[Image, Image]:
    top, left = (max(0, (size - side) // 2) for size in lr.shape[:2])
    bottom, right = top + side, left + side
    return lr[top:bottom, left:right], hr[scale * top : scale * bottom, scale * left : scale * right]


def _open_board(config: FitConfig, first_step: int) -> Any:  # noqa: ANN401 - its module is optional
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"TensorBoard is not installed. Run: {install_command('train')}, or add --no-tensorboard"
        ) from error
    return SummaryWriter(Path(config.output) / "tensorboard", purge_step=first_step or None)

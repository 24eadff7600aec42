"""Train an IGNN: `ignn train --data FOLDER --output RUN`, on a CPU, a GPU, or several under `torchrun -m train.fit`.

The same command resumes a run where its checkpoint stopped, to the very weights it would have had unbroken (on a CPU
with the same number of threads; GPUs add in varying order). A batch depends on nothing but the seed and the step.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from runtime.atomic import make_folder, remove_leftovers
from runtime.cli import run_command
from runtime.errors import UsageError
from train.augment import draw_variations, vary
from train.checkpoint import Checkpoint, RunState, read_checkpoint, read_weights, save_checkpoint
from train.data import PatchSource, open_patches
from train.distributed import ProcessGroup
from train.errors import CheckpointError, TrainingError
from train.fit_config import EMBEDDED, FitConfig, parse_config
from train.gpu import CapturedGradients, PatchCutter, fits
from train.graph_picture import GraphPicture, graph_loss
from train.graph_report import graph_shares
from train.loader import Batch, BatchLoader
from train.model import IGNN
from train.monitor import Monitor, Validation, check_finite
from train.optimizer import Optimizer
from train.warm_start import pass_backbone_through, take_backbone_out

_OF_GRAPH = ("errors", "gcn", "fuse_b", "fuse_up")
"""Parts of the network that a backbone does not have."""
_MEASURED_PATCHES = 32
"""Patches on which a backbone's features are measured before the graph is fused in."""
_READ_EVERY_ON_GPU = 10
"""Steps between reading losses on a GPU: each reading makes the host wait for it."""


def _l1(sr: Tensor, hr: Tensor) -> Tensor:
    return (sr - hr).abs().mean()


def _psnr_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean over images of 10 log10(MSE + 1): PSNR in dB, turned round."""
    return 10 * ((sr - hr).square().mean(dim=(1, 2, 3)) + 1).log10().mean()


LOSSES = {"l1": _l1, "psnr": _psnr_loss}


class Trainer:
    """One network, its optimiser and its place in the schedule."""

    def __init__(self, config: FitConfig, source: PatchSource, group: ProcessGroup) -> None:
        self.config, self.source, self.group, self.step = config, source, group, 0
        torch.manual_seed(config.seed)
        start = read_checkpoint(config.start) if config.start else None
        net = _initial_network(config, start)
        if start is not None and start.stage == "backbone" and config.graph_is_new:
            pass_backbone_through(net, source.batch(0, config.seed, _MEASURED_PATCHES, config.patch)[0].float())
        if config.stage == "graph":
            net.requires_grad_(False)
            for name, part in net.named_children():
                part.requires_grad_(name in _OF_GRAPH)
        self.net = net.to(group.device)
        # No torch.compile: on a CPU it saves the backbone no time, and PyTorch 2.13's assumes wrong strides for the
        # gradient of the whole network's replicating pad in channels-last, and stops.
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.graph_picture = GraphPicture(self.net).to(group.device) if config.graph_loss else None
        self.optimizer = Optimizer(self.net, config, self.graph_picture.parameters() if self.graph_picture else ())
        self.parameters = self.optimizer.parameters
        self.average = {name: value.clone() for name, value in self.net.state_dict().items()}
        self._cutter = PatchCutter(source, config.patch, group.device) if fits(source, group.device) else None
        self._captured: CapturedGradients | None = None

    def make_batch(self, step: int) -> Batch:
        """Prepare this process's part of a step: patches, or where on the device to cut them."""
        config = self.config
        first = self.group.rank * config.batch
        of_step = (step, config.seed, config.batch, config.patch, first)
        batch = (self._cutter.places(self.source.draw(*of_step)),) if self._cutter else self.source.batch(*of_step)
        if config.augment:
            batch = (*batch, draw_variations(step, config.seed, config.batch, first))
        return tuple(part.pin_memory() for part in batch) if self.group.device.type == "cuda" else batch

    def train_step(self, batch: Batch) -> Tensor:
        """Take one optimiser step with what `make_batch` prepared; return the loss, on the device."""
        config, device = self.config, self.group.device
        parts = [part.to(device, non_blocking=True) for part in batch]
        if config.stage == "backbone" and device.type == "cuda":  # no host in it, and always the same shapes
            if self._captured is None:
                self._captured = CapturedGradients(self._add_gradients, parts, self.parameters)
            loss = self._captured(*parts)
        else:
            loss = self._add_gradients(*parts)
        self.group.average_gradients(self.parameters, loss)
        if config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step(learning_rate(config, self.step) / config.learning_rate)
        self._update_average()
        self.step += 1
        return loss

    def _add_gradients(self, *parts: Tensor) -> Tensor:
        """Add the gradients of a batch on the device to the parameters'; return the loss."""
        config = self.config
        lr, hr = self._cutter.cut(parts[0]) if self._cutter else parts[:2]
        lr, hr = lr.float(), hr.float()
        if config.augment:
            lr, hr = vary(lr, hr, parts[-1])
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=config.bf16):
            lr = lr.contiguous(memory_format=torch.channels_last)
            sr = self.net.forward_backbone(lr) if config.stage == "backbone" else self.net(lr)
            picture = self.graph_picture() if self.graph_picture else None
        loss = LOSSES[config.loss](sr.float(), hr)
        total = loss
        if picture is not None:
            total = loss + config.graph_loss * graph_loss(picture.float(), hr)
        total.backward()
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step)) if self.config.ema else 0.0
        values = self.net.state_dict()
        torch._foreach_lerp_([self.average[name] for name in values], list(values.values()), 1 - decay)

    def averaged_network(self) -> IGNN:
        """Return a copy of the network with the averaged weights."""
        averaged = IGNN(self.net.config).to(self.group.device).eval()
        averaged.load_state_dict(self.average)
        return averaged

    def save(self, path: Path) -> None:
        """Write the averaged network and everything that a resumed run needs.

        Raises:
            TrainingError: the weights are no longer finite; the file is left as it was.
            WriteError: the file cannot be written; it is left as it was.
        """
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            raise TrainingError(
                f"Weights are not finite at step {self.step}. {path} is left as it was: lower --learning-rate, or set "
                "--clip, and run the command again."
            )
        run = RunState(
            fit=vars(self.config),
            step=self.step,
            raw_weights=self.net.state_dict(),
            optimizer=self.optimizer.state_dict(),
            data_sha256=self.source.checksum,
            versions={"torch": str(torch.__version__), "numpy": np.__version__},
            graph_picture=self.graph_picture.state_dict() if self.graph_picture else {},
            processes=self.group.size,
        )
        save_checkpoint(self.averaged_network(), path, run=run)

    def resume(self, path: Path) -> list[str]:
        """Take up where the checkpoint stopped.

        Returns:
            What makes the rest of the run another than it would have been unbroken.

        Raises:
            CheckpointError: it is of another network, stage or optimiser.
        """
        checkpoint = read_checkpoint(path)
        run = checkpoint.run
        if run is None:
            raise CheckpointError(f"Checkpoint {path} holds no run to resume. Use --start {path} and another --output.")
        self._check_same_run(checkpoint, run)
        self.net.load_state_dict(run.raw_weights)
        if self.graph_picture:
            self.graph_picture.load_state_dict(run.graph_picture)
        for name, value in checkpoint.weights.items():
            self.average[name].copy_(value)
        self.optimizer.load_state_dict(run.optimizer)
        self.step = run.step
        notes = []
        if run.data_sha256 != self.source.checksum:
            notes.append("the training images are others than before")
        if run.processes * run.fit["batch"] != self.group.size * self.config.batch:
            notes.append("the batch is another than before")
        return notes

    def _check_same_run(self, checkpoint: Checkpoint, run: RunState) -> None:
        """Raise if the weights are not those of this network, or the optimiser's state not of these optimisers."""
        advice = f"Use another --output, and --start {checkpoint.path} to begin with its weights."
        if checkpoint.config != self.net.config or checkpoint.stage != self.config.stage:
            raise CheckpointError(
                f"Checkpoint {checkpoint.path} is of another network or stage ({checkpoint.config.to_dict()}, "
                f"{checkpoint.stage}). {advice}"
            )
        for name in ("muon", "graph_loss"):  # both may change along a run, but not begin or end
            before, now = run.fit.get(name, 0.0), getattr(self.config, name)
            if bool(before) != bool(now):
                raise CheckpointError(
                    f"Checkpoint {checkpoint.path} is of a run with {name} = {before}, not {now}: other optimisers. "
                    f"{advice}"
                )


def learning_rate(config: FitConfig, step: int) -> float:
    """Return the learning rate of a step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "halving":
        return float(config.learning_rate * 0.5 ** (step // config.period))
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step % config.period) / config.period)))


def _initial_network(config: FitConfig, start: Checkpoint | None) -> IGNN:
    """Return a network with the weights that the run starts from; what no file gives is random."""
    net = IGNN(config.net)
    if start is not None:
        own = net.state_dict()
        fitting = {
            name: value for name, value in start.weights.items() if name in own and value.shape == own[name].shape
        }
        if not any(name.startswith("body") for name in fitting):
            raise CheckpointError(f"Checkpoint {start.path} fits no block of this network: another width or preset?")
        net.load_state_dict(own | fitting)
        if config.stage == "backbone" and start.stage != "backbone":
            take_backbone_out(net)
    if config.embedding:
        _load_embedding(net, config.embedding)
    elif config.stage != "backbone" and net.config.graph in EMBEDDED and not (start and start.has_embedding):
        raise UsageError("The graph needs VGG19's weights. Give --embedding FILE (torchvision's vgg19 names).")
    return net


def _load_embedding(net: IGNN, path: str) -> None:
    names = {f"features.{number}.{kind}": f"model.{number}.{kind}" for number in (0, 2) for kind in ("weight", "bias")}
    content, own = read_weights(path), net.embedding.state_dict()
    wrong = [
        name
        for name, ours in names.items()
        if not isinstance(content.get(name), Tensor) or content[name].shape != own[ours].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path} is no VGG19 of torchvision's: {', '.join(wrong)} missing or of another shape. "
            "Give --embedding the file of torchvision's vgg19."
        )
    net.embedding.load_state_dict({ours: content[name] for name, ours in names.items()}, strict=False)


class _StopRequest:
    """Whether to save and stop: by SIGTERM, Ctrl-C (a second one kills), or because the time is up."""

    def __init__(self, time_limit: float) -> None:
        self._deadline = time.monotonic() + 60 * time_limit if time_limit else math.inf
        self._signalled = False
        self._before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)

    def forget(self) -> None:
        """Give the signals their old meaning back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._signalled or time.monotonic() > self._deadline


def run(config: FitConfig, group: ProcessGroup, stop: _StopRequest) -> str:
    """Train until done or stopped; return what to tell the user."""
    output = Path(config.output)
    make_folder(output)
    held_out = 0 if config.validation else config.held_out
    photographs = partial(
        open_patches, config.data, config.scale, config.patch, output.parent / "cache", held_out, config.copies
    )
    if group.rank == 0:  # the first decodes, the others open what it made
        source = photographs()
    group.wait()
    if group.rank != 0:
        source = photographs()
    trainer = Trainer(config, source, group)
    last = output / "last.pt"
    notes = trainer.resume(last) if last.exists() else []
    group.wait()  # until all have read the checkpoint
    monitor = validation = None
    if group.rank == 0:
        remove_leftovers(last)
        validation, monitor = Validation(config, source), Monitor(config, trainer.step, group.size)
        _describe(source, len(validation.pairs), group, notes)
    try:
        _loop(trainer, stop, last, monitor, validation)
    finally:
        if monitor:
            monitor.close()
    waiting = f", {monitor.share_waiting:.1%} of the time waiting for data" if monitor and trainer.step else ""
    ended = "done" if trainer.step >= config.steps else "stopped; the same command goes on"
    return f"{last}: step {trainer.step} of {config.steps}, {ended}{waiting}"


def _loop(
    trainer: Trainer, stop: _StopRequest, last: Path, monitor: Monitor | None, validation: Validation | None
) -> None:
    config, group = trainer.config, trainer.group
    read_every = _READ_EVERY_ON_GPU if group.device.type == "cuda" else 1
    unread: list[Tensor] = []
    recent: list[float] = []
    with BatchLoader(trainer.make_batch, trainer.step, config.workers) as loader:
        while trainer.step < config.steps:
            unread.append(trainer.train_step(loader.next_batch()))
            step = trainer.step
            due = [
                step == config.steps or step % every == 0 for every in (read_every, config.log_every, config.save_every)
            ]
            if any(due):
                values, unread = check_finite(torch.stack(unread), step - len(unread)), []
                recent += values
                stopping = group.any(bool(stop))
                if monitor:
                    monitor.progress(step, values, loader.seconds_waiting)
                    if due[1]:
                        monitor.record(
                            step,
                            loss=float(np.mean(recent)),
                            learning_rate=learning_rate(config, step - 1),
                            images_per_second=monitor.images_per_second,
                            share_waiting=monitor.share_waiting,
                        )
                        recent = []
                    if due[2] or stopping:
                        trainer.save(last)
                if stopping:
                    return
            if (
                monitor
                and validation
                and validation.pairs
                and (step % config.validate_every == 0 or step == config.steps)
            ):
                averaged = trainer.averaged_network()
                shares = {} if config.stage == "backbone" else graph_shares(averaged)
                monitor.record_validation(step, *validation.measure(averaged), shares)


def _describe(source: PatchSource, validated: int, group: ProcessGroup, notes: list[str]) -> None:
    sys.stderr.write(f"{source.trained} images to train on, {validated} to validate; {group.size} x {group.device}\n")
    for skipped in source.skipped:
        sys.stderr.write(f"skipped {skipped}\n")
    for note in notes:
        sys.stderr.write(f"resumed, but {note}\n")


def main(argv: list[str] | None = None) -> int:
    """Train as the flags say; resume if the output folder holds a run."""
    config = parse_config(argv)
    stop = _StopRequest(config.time_limit)
    try:
        group = ProcessGroup(config.device)
        if group.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        message = run(config, group, stop)
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"Memory ran out ({error}). Use a smaller --batch or --patch.") from error
    finally:
        stop.forget()
    if group.rank == 0:
        sys.stdout.write(message + "\n")
    group.close()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m train.fit", main))

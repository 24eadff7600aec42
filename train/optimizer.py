"""Adam, and Muon beside it where a run asks for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train.fit_config import FitConfig
from train.model import IGNN


class Optimizer:
    """The optimisers of a run: Adam for every parameter, or Muon for the convolutions between feature maps.

    Muon (Jordan et al. 2024) replaces a weight matrix's gradient by the nearest orthogonal matrix, so that all its
    directions are learned at one speed. Biases and what ends in or begins at fewer channels (the first and the last
    convolution, the edge networks' single weight) stay with Adam. A convolution that reads the graph beside the
    backbone is two matrices: the graph's gradient is small at first, and one orthogonal matrix of both keeps it so.

    Args:
        net: a network in channels-last memory format.
        config: `learning_rate` is Adam's, `muon` is Muon's.
        others: parameters outside the network, for Adam.
    """

    def __init__(self, net: IGNN, config: FitConfig, others: Iterable[nn.Parameter] = ()) -> None:
        own = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.parameters = [*own.values(), *others]
        self._matrices = list(_matrices(own, net.config.channels)) if config.muon else []
        hidden = {matrix.weight for matrix in self._matrices}
        adam = torch.optim.Adam(
            [p for p in self.parameters if p not in hidden], lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8
        )
        self._optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"adam": (adam, config.learning_rate)}
        if config.muon:
            self._optimizers["muon"] = (Muon([matrix.values for matrix in self._matrices], config.muon), config.muon)

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Change the parameters by their gradients, which are forgotten, at a share of the peak learning rates."""
        for values, weight, start, stop in self._matrices:
            values.copy_(_as_matrix(weight[:, start:stop]))
            values.grad = None if weight.grad is None else _as_matrix(weight.grad[:, start:stop])
        for optimizer, peak in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
        for values, weight, start, stop in self._matrices:
            part = weight[:, start:stop].permute(0, 2, 3, 1)
            part.copy_(values.view_as(part))
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes back."""
        return {name: optimizer.state_dict() for name, (optimizer, _) in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called, on a run of the same optimisers."""
        for name, (optimizer, _) in self._optimizers.items():
            optimizer.load_state_dict(state[name])


class Muon(torch.optim.Optimizer):
    """Muon, step for step `torch.optim.Muon` without weight decay, but in float32 and all matrices of a shape at once.

    That one's products are in bfloat16, one matrix after another: on a CPU without bfloat16 they took longer than half
    of all that the backbone of `ignn-s` computes in a step of 8 patches of 48 x 48.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate.
        momentum: of Nesterov's kind.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            ahead: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                ahead[matrix.shape].append((matrix, matrix.grad.lerp(average, group["momentum"])))
            for (rows, columns), matrices in ahead.items():
                # A tall matrix moves further: its columns are then as long as those of a square one.
                distance = group["lr"] * max(1, rows / columns) ** 0.5
                for (matrix, _), direction in zip(
                    matrices, orthogonal(torch.stack([step for _, step in matrices])), strict=True
                ):
                    matrix.add_(direction, alpha=-distance)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return (n, rows, columns) matrices with nearly the same singular vectors and singular values of about 1.

    Five steps of Newton-Schulz's iteration with the coefficients of Muon's authors (Jordan et al. 2024), which grow
    small singular values fastest and leave all of them between 0.7 and 1.2.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide.mT if tall else wide


class _Matrix(NamedTuple):
    """What Muon sees of a convolution's weight (O, I, h, w): its input channels [start, stop) as (O, h * w * I)."""

    values: nn.Parameter
    weight: nn.Parameter
    start: int
    stop: int


def _matrices(parameters: dict[str, nn.Parameter], channels: int) -> Iterator[_Matrix]:
    for name, weight in parameters.items():
        if weight.ndim != 4 or min(weight.shape[:2]) < channels:
            continue
        inputs = weight.shape[1]
        part = channels if name.startswith("fuse_") else inputs
        for start in range(0, inputs, part):
            values = nn.Parameter(_as_matrix(weight.detach()[:, start : start + part]).clone())
            yield _Matrix(values, weight, start, start + part)


def _as_matrix(weight: Tensor) -> Tensor:
    """Return a weight (O, I, h, w) as (O, h * w * I)."""
    return weight.permute(0, 2, 3, 1).flatten(1)

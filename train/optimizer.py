"""Adam, and Muon beside it where a run asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from runtime.errors import UsageError
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

    Raises:
        UsageError: Muon is asked for and this PyTorch has none.
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
            if not hasattr(torch.optim, "Muon"):
                raise UsageError(
                    f"Muon needs PyTorch 2.9; this is {torch.__version__}. Run: pip install 'torch>=2.9,<2.14'"
                )
            muon = torch.optim.Muon([matrix.values for matrix in self._matrices], lr=config.muon, weight_decay=0.0)
            self._optimizers["muon"] = (muon, config.muon)

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

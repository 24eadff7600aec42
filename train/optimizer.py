"""Adam, and Muon beside it where a run asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from train.fit_config import FitConfig
from train.model import IGNN


class Optimizer:
    """The optimisers of a run: Adam for every parameter, or Muon for the convolutions between feature maps.

    Muon (Jordan et al. 2024) replaces a weight matrix's gradient by the nearest orthogonal matrix, so that all its
    directions are learned at one speed. Biases and what ends in or begins at fewer channels (the first and the last
    convolution, the edge networks' single weight) stay with Adam. So do the fusions: their first convolution reads
    the backbone beside a graph that is small at first, and one orthogonal matrix of both leaves it small.

    Args:
        net: a network in channels-last memory format.
        config: `learning_rate` is Adam's, `muon` is Muon's.
        others: parameters outside the network, for Adam.

    Raises:
        ValueError: if Muon is asked for and this PyTorch has none.
    """

    def __init__(self, net: IGNN, config: FitConfig, others: Iterable[nn.Parameter] = ()) -> None:
        own = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.parameters = [*own.values(), *others]
        self._hidden = [p for name, p in own.items() if config.muon and _is_hidden(name, p, net.config.channels)]
        hidden = set(self._hidden)
        rest = [p for p in self.parameters if p not in hidden]
        # Muon takes matrices only: these share their numbers with the convolutions' weights.
        self._matrices = [nn.Parameter(_as_matrix(p.detach())) for p in self._hidden]
        adam = torch.optim.Adam(rest, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8)
        self._optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {"adam": (adam, config.learning_rate)}
        if config.muon:
            if not hasattr(torch.optim, "Muon"):
                raise ValueError(
                    f"Muon needs PyTorch 2.9; this is {torch.__version__}. Run: pip install 'torch>=2.9,<2.14'"
                )
            muon = torch.optim.Muon(self._matrices, lr=config.muon, weight_decay=0.0)
            self._optimizers["muon"] = (muon, config.muon)

    def step(self, share: float) -> None:
        """Change the parameters by their gradients, which are forgotten, at a share of the peak learning rates."""
        for matrix, parameter in zip(self._matrices, self._hidden, strict=True):
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad)
        for optimizer, peak in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes back."""
        return {name: optimizer.state_dict() for name, (optimizer, _) in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called, on a run of the same optimisers."""
        for name, (optimizer, _) in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def _is_hidden(name: str, parameter: Tensor, channels: int) -> bool:
    return not name.startswith("fuse_") and parameter.ndim == 4 and min(parameter.shape[:2]) >= channels


def _as_matrix(weight: Tensor) -> Tensor:
    """View a channels-last (O, I, h, w) weight as (O, h * w * I)."""
    return weight.permute(0, 2, 3, 1).flatten(1)

"""Several processes as one: gradients averaged over all of them, by plain `torch.distributed`.

It takes one all-reduce of one flat vector a step. Lightning Fabric would do the same with another dependency and its
own launcher and checkpoints; DistributedDataParallel would wrap the network and wants to know which parameters a
stage leaves out.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from runtime.errors import UsageError


def check_device(name: str) -> torch.device:
    """Return the device of this name: cpu, cuda, or cuda:1 and so on.

    Raises:
        UsageError: there is no such device here.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name, re.ASCII):
        raise UsageError(f"Invalid device ({name!r}). Supported values are cpu, cuda, cuda:0, cuda:1 and so on.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count() or "no"
        raise UsageError(f"Invalid device ({name!r}). PyTorch sees {seen} GPUs here; use --device cpu.")
    return device


class ProcessGroup:
    """The processes that `torchrun` started, or this one alone.

    Attributes:
        rank: number of this process; the one with rank 0 writes files.
        size: number of processes.
        device: the device this process computes on.
    """

    def __init__(self, device: str) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device not in ("cpu", "cuda"):
            raise UsageError(f"Invalid device ({device!r}). Supported values are auto, cpu, cuda.")
        check_device(device)
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else "cpu")
        if device == "cuda":
            torch.cuda.set_device(self.device)
        if self.size > 1:
            # The first optimiser imports this, and functions in there take the group that exists by then as a default
            # argument: it would never be freed, and its threads abort the process ("terminate called ...") now and
            # then when they let go of a tensor while the interpreter ends. Imported before, there is no group to keep.
            importlib.import_module("torch._dynamo")
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place."""
        if self.size == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, (flat / self.size).split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view(tensor.shape))

    def average_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> None:
        """Average the gradients, and the loss with them."""
        self.average([loss, *(p.grad for p in parameters if p.grad is not None)])

    def any(self, value: bool) -> bool:
        """Return whether it is true in any process; every process must call it."""
        flag = torch.tensor(float(value), device=self.device)
        self.average([flag])
        return bool(flag > 0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

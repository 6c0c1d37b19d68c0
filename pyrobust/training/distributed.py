"""One training over several processes, as torchrun starts them: who does what, and what they have to agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyrobust.training.term import Batch, Objective


@dataclass(frozen=True)
class World:
    """This process among those that train together; alone, every method is free and does nothing.

    Attributes:
        rank: from 0; rank 0 writes the files.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The default process group, where one has been started."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each; in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, in each; in place."""
        return self.sum(values).div_(self.size) if self.size > 1 else values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes by rank, in rank 0; in the others, the own alone."""
        if self.size == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, gathered)
        return [value] if gathered is None else gathered

    def share_buffers(self, module: nn.Module) -> None:
        """Rank 0's buffers (batch-norm statistics) in every process, as DistributedDataParallel does at each step."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started (gloo on the CPU, NCCL on GPUs); alone where it started none.

    Unless one fails, all leave together. One that ended while gloo's threads still held what was summed last would abort.

    Yields:
        The device of this process: ``device``, or the GPU of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)
    finally:
        dist.destroy_process_group()


class StepLoss(nn.Module):
    """The loss of a step as one forward pass, which is what DistributedDataParallel can wrap: the objective may run the
    model as often as it likes.

    The objective is kept out of the module's parameters: it moves them itself.
    """

    def __init__(self, model: nn.Module, objective: Objective, world: World, compiled: bool) -> None:
        super().__init__()
        self.model: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
        self._outside = objective, world

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        objective, world = self._outside
        batch.inputs.requires_grad_(objective.needs_input_grad)
        objective.prepare(self.model, batch)
        if world.size > 1:
            for parameter in objective.parameters():
                world.mean(parameter.data)
        loss, terms = objective(self.model, batch)
        return loss, terms

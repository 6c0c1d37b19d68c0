"""Everything that changes while training, kept in one file from which it goes on exactly."""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from pyrobust._files import write_atomically
from pyrobust.training.distributed import World
from pyrobust.training.logs import History, Record
from pyrobust.training.term import Objective

CHECKPOINT = "checkpoint.pt"
FORMAT = 1


@dataclass
class State:
    """With the settings and the data, this decides all that follows: random numbers are keyed by seed and step.

    Attributes:
        ema: the averaged weights, where asked for.
        step: steps done.
        best: the weights of the best epoch, on the CPU, where asked for.
    """

    model: nn.Module
    objective: Objective
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    record: Record
    history: History
    step: int = 0
    best: dict[str, Tensor] | None = None

    @property
    def averaged(self) -> nn.Module:
        """The model that is validated and left at the end: with averaged weights where there are any."""
        return self.model if self.ema is None else self.ema.module

    @property
    def lr(self) -> float:
        """The rate of the next step, in the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    def keep_best(self) -> None:
        """Remember the weights as those of the best epoch."""
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.averaged.state_dict().items()}

    def save(self, path: Path, settings: dict[str, Any], world: World) -> None:
        """Write the checkpoint: whole, or not at all if the process dies meanwhile. Every process has to call it."""
        own = {"objective": self.objective.state_dict(), "record": self.record.values}
        by_rank = world.gather(own)
        if not world.leads:
            return
        content = {
            "format": FORMAT,
            "settings": settings,
            **{name: part.state_dict() for name, part in self._parts().items()},
            "by_rank": by_rank,
            "history": asdict(self.history),
            "step": self.step,
            "best": self.best,
        }
        write_atomically(path, lambda file: torch.save(content, file))

    def load(self, path: Path, settings: dict[str, Any], world: World) -> None:
        """Go on from a checkpoint. Nothing is unpickled but tensors and plain data.

        The objective's own state is that of the same rank, or of rank 0 where there were fewer processes.

        Raises:
            ValueError: the file is no checkpoint, or of a training with other settings.
        """
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            found = saved["format"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"resume: {path} cannot be read as a checkpoint: {error}") from error
        if found != FORMAT:
            raise ValueError(f"resume: {path} is in format {found}; this version reads format {FORMAT}")
        changed = [
            f"{name} was {saved['settings'].get(name)!r}, is {settings.get(name)!r}"
            for name in sorted({*settings, *saved["settings"]})
            if saved["settings"].get(name) != settings.get(name)
        ]
        if changed:
            raise ValueError(f"resume: {path} is of a training with other settings: {'; '.join(changed)}")
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        by_rank = saved["by_rank"]
        own = by_rank[world.rank if world.rank < len(by_rank) else 0]
        self.objective.load_state_dict(own["objective"])
        self.record.values.copy_(own["record"])
        self.history = History(**saved["history"])
        self.step, self.best = saved["step"], saved["best"]

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler}
        return parts if self.ema is None else {**parts, "ema": self.ema}

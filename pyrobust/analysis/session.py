"""What every analysis command works on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pyrobust.analysis.work import Work
from pyrobust.data import Data


@dataclass(frozen=True)
class Session:
    """A network, data, and where the work goes.

    Attributes:
        model: on ``device``, in evaluation mode; the identity where a command works on the data alone.
        name: what pages call the model.
        data: with all its samples, in [0, 1], on the CPU.
        inputs, labels: the first samples of the test part, on ``device``.
        seed: of all randomness.
        batch_size: samples a forward pass.
        work: progress and resume.
    """

    model: nn.Module
    name: str
    data: Data
    inputs: Tensor
    labels: Tensor
    device: torch.device
    seed: int = 0
    batch_size: int = 128
    work: Work = field(default_factory=Work)

    def training_part(self) -> tuple[Tensor, Tensor]:
        """Inputs and labels that linear classifiers are fitted to, on the CPU.

        Raises:
            ValueError: the data have none.
        """
        if self.data.train is None:
            raise ValueError(f"data: expected one with a training part, {self.data.name} has none")
        return self.data.train

    def check_two(self, classes: tuple[int, int], argument: str) -> None:
        """Raises:
        ValueError: naming the argument that they were given as: they are not two different classes of both parts of the data.
        """
        there = sorted(set(self.training_part()[1].tolist()) & set(self.data.test[1].tolist()))
        if classes[0] == classes[1] or not set(classes) <= set(there):
            raise ValueError(f"{argument}: expected two different ones of {there}, got {classes[0]} and {classes[1]}")

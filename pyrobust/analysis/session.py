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

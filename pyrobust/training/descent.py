"""How the weights move: torch's optimisers and schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from pyrobust.attacks._common import check_number, check_positive

OptimizerLike = str | Callable[[Iterable[nn.Parameter]], Optimizer]
ScheduleLike = str | Callable[[Optimizer, int], LRScheduler]

OPTIMIZERS = ("sgd", "adam", "adamw")
# The share of the initial rate, by the share of the training that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "steps": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
}


def make_optimizer(
    optimizer: OptimizerLike, model: nn.Module, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """The optimiser of all of the model's parameters.

    Args:
        optimizer: "sgd", "adam" or "adamw", or a function of the parameters, which then decides on all the rest.
        lr: step size, > 0.
        momentum: of SGD, and Adam's β₁, in [0, 1).
        weight_decay: coefficient of ½‖w‖² in the gradient, >= 0; for "adamw", of the shrinkage beside the gradient.

    Raises:
        ValueError: naming the argument.
    """
    parameters = list(model.parameters())
    if callable(optimizer):
        return optimizer(parameters)
    check_positive(lr=lr)
    check_number("momentum", momentum, 0, 1, below=True)
    check_number("weight_decay", weight_decay, 0)
    if optimizer == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    if optimizer == "adam":
        return torch.optim.Adam(parameters, lr, betas=(momentum, 0.999), weight_decay=weight_decay)
    if optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, betas=(momentum, 0.999), weight_decay=weight_decay)
    raise ValueError(f"optimizer: expected {', '.join(OPTIMIZERS)}, or a function of the parameters, got {optimizer!r}")


def make_schedule(schedule: ScheduleLike, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The schedule of the rate over ``steps`` steps; it moves on after each.

    Args:
        schedule: "constant"; "cosine" (to 0 along half a cosine); "steps" (a tenth from half of the training on, a
            hundredth from three quarters); or a function of (optimiser, number of steps).

    Raises:
        ValueError: another name.
    """
    if callable(schedule):
        return schedule(optimizer, steps)
    if schedule not in SCHEDULES:
        raise ValueError(
            f"schedule: expected {', '.join(SCHEDULES)}, or a function of (optimiser, steps), got {schedule!r}"
        )
    share = SCHEDULES[schedule]
    return LambdaLR(optimizer, lambda step: share(min(step / steps, 1.0)))

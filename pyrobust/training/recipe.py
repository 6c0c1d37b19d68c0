"""The numbers of a training: how long, how fast, in which precision, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyrobust._checks import Bounds, check_bounds
from pyrobust.attacks._common import check_count, check_positive
from pyrobust.training.descent import OptimizerLike, ScheduleLike
from pyrobust.training.validation import Validation

PRECISIONS = {None: None, "bfloat16": torch.bfloat16, "float16": torch.float16}

Augmentation = Callable[[Tensor, Tensor, int, int], Tensor]  # of (inputs, sample_ids, step, seed)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that `train` is told beside model, objective and data.

    Attributes:
        epochs: passes over the data.
        batch_size: samples a step, over all processes.
        optimizer, lr, momentum, weight_decay: see `make_optimizer`; where ``optimizer`` is a function, it decides on the
            other three.
        schedule: see `make_schedule`; it moves on after every step.
        clip: largest l2 norm of the gradient over all parameters, > 0; longer ones are scaled down to it.
        ema: decay d in (0, 1) of averaged weights: θ̄ ← d θ̄ + (1 − d) θ after every step, θ̄ = θ after the first. Buffers
            are those of the model.
        amp: "bfloat16", or "float16" (CUDA alone, with loss scaling): precision of the forward passes by autocast.
        compile: run the model through `torch.compile`; not for terms that differentiate a gradient of the model.
        augment: called with (inputs, sample_ids, step, seed); returns inputs of the same shape within ``bounds``.
        validation: what is held out, and attacked after every epoch; None: nothing.
        patience: stop after so many epochs in which the validation measure was not above its best.
        keep_best: leave the weights of the epoch with the best measure, rather than the last.
        bounds: (low, high) of the inputs.
        seed: >= 0, of all randomness but the initial weights.
        log_every: steps between rows of the log. Only then, and at the end of an epoch, is the device waited for.

    Raises:
        ValueError: naming the argument.
    """

    epochs: int
    batch_size: int = 128
    optimizer: OptimizerLike = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: ScheduleLike = "cosine"
    clip: float | None = None
    ema: float | None = None
    amp: str | None = None
    compile: bool = False
    augment: Augmentation | None = None
    validation: Validation | None = None
    patience: int | None = None
    keep_best: bool = False
    bounds: Bounds = (0.0, 1.0)
    seed: int = 0
    log_every: int = 50

    def __post_init__(self) -> None:
        check_count(epochs=self.epochs, batch_size=self.batch_size, log_every=self.log_every)
        check_bounds(self.bounds)
        if self.clip is not None:
            check_positive(clip=self.clip)
        if self.ema is not None:
            check_positive(ema=self.ema, below=1)
        if self.amp not in PRECISIONS:
            raise ValueError(f'amp: expected "bfloat16", "float16" or None, got {self.amp!r}')
        if self.patience is not None:
            check_count(patience=self.patience)
        if self.validation is None and (self.patience is not None or self.keep_best):
            raise ValueError("validation: expected one, since patience and keep_best go by its measure")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: expected an integer >= 0, got {self.seed!r}")

    def record(self) -> dict[str, Any]:
        """The recipe as plain data: functions by their names."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def plain(value: Any) -> Any:
    """What can be told of a value as plain data, to compare settings by: functions by name, objects by their public
    attributes, tensors by shape."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    if isinstance(value, partial):
        return {"function": plain(value.func), "given": plain([*value.args, value.keywords])}
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    attributes = getattr(value, "__dict__", {}).items()
    public = {key: plain(item) for key, item in attributes if key != "training" and not key.startswith("_")}
    return {"type": type(value).__qualname__, **public}

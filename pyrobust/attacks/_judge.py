"""Results of attacks that ran under autocast, judged again in float32.

torch.autocast around an attack speeds its passes up, and lets logits be off by a percent: points at the boundary are then
often adversarial in 16 bits alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model, replace_rows_, rows_like, undisturbed
from pyrobust.attacks._search import is_adversarial

P = ParamSpec("P")
_STRETCH = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0)  # of a perturbation that falls short in float32, until one suffices


def under_autocast(inputs: Tensor) -> bool:
    """Whether the caller has switched autocast on for the device of the inputs."""
    return torch.is_autocast_enabled(inputs.device.type)


@torch.no_grad()
def judge(
    model: Model, inputs: Tensor, labels: Tensor, adv: Tensor, targeted: bool, bounds: Bounds, stretch: bool = True
) -> tuple[Tensor, Tensor]:
    """The points that fool the model without autocast, and which those are, (N,).

    A point that does not is moved on along its perturbation to the first of a few lengths that does (with ``stretch``), up to
    twice as far; else it is the input itself, as it is where that fools the model.

    Costs 2 forward passes, and with ``stretch`` up to 7 more.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        already = is_adversarial(model(inputs), labels, targeted)
        fooled = is_adversarial(model(adv), labels, targeted)
        found = torch.where(rows_like(fooled & ~already, inputs), adv, inputs)
        fooled |= already
        for factor in _STRETCH if stretch else ():
            if bool(fooled.all()):
                break
            further = torch.lerp(inputs.double(), adv.double(), factor).clamp(*bounds).to(inputs.dtype)
            here = is_adversarial(model(further), labels, targeted) & ~fooled
            replace_rows_(found, here, further)
            fooled |= here
    return found, fooled


def judged_in_float32(
    attack: Callable[Concatenate[Model, Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[Model, Tensor, Tensor, P], Tensor]:
    """Make a minimum-norm attack :func:`judge` what it returns where it is called under autocast."""
    return _judged(attack, stretch=True)


def judged_as_it_is(
    attack: Callable[Concatenate[Model, Tensor, Tensor, P], Tensor],
) -> Callable[Concatenate[Model, Tensor, Tensor, P], Tensor]:
    """As :func:`judged_in_float32`, for points that mean nothing if they are moved."""
    return _judged(attack, stretch=False)


def _judged(
    attack: Callable[Concatenate[Model, Tensor, Tensor, P], Tensor], *, stretch: bool
) -> Callable[Concatenate[Model, Tensor, Tensor, P], Tensor]:
    @functools.wraps(attack)
    def judged(model: Model, inputs: Tensor, labels: Tensor, *args: P.args, **options: P.kwargs) -> Tensor:
        adv = attack(model, inputs, labels, *args, **options)
        if not (isinstance(inputs, Tensor) and under_autocast(inputs)):
            return adv
        given: dict[str, Any] = dict(options)
        with undisturbed(model, given.get("eval_mode", True)):
            return judge(
                model, inputs, labels, adv, given.get("targeted", False), given.get("bounds", (0.0, 1.0)), stretch
            )[0]

    return judged

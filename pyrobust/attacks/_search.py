"""What attacks that search for the nearest adversarial point share: which points count, and the nearest so far."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust.attacks._common import replace_rows_, rows_like
from pyrobust.attacks._jacobian import class_gradients as class_gradients
from pyrobust.ops import PrimalDualState


class SearchState(NamedTuple):
    """What a callback sees: the point just predicted, where it was adversarial, the nearest so far and how far it is
    (inf: none yet)."""

    adv: Tensor
    adversarial: Tensor
    best: Tensor
    best_distance: Tensor


def is_adversarial(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """(N,) bool: the prediction is the target, or is not the label; never where a logit is NaN."""
    predicted = logits.argmax(1)
    fooled = predicted == labels if targeted else predicted != labels
    return fooled & ~logits.isnan().any(1)


class Nearest:
    """The nearest adversarial point of each sample among those offered, without synchronising with the device.

    Attributes:
        adv: like the inputs: the nearest point, the input itself where there is none.
        distance: (N,) in float32 at least: 0 where the input is adversarial already, inf where no point is known.
    """

    def __init__(self, inputs: Tensor, already: Tensor) -> None:
        wide = torch.promote_types(inputs.dtype, torch.float32)
        self.adv = inputs.clone()
        self.distance = torch.full(already.shape, math.inf, dtype=wide, device=inputs.device).masked_fill(already, 0.0)

    def offer(self, points: Tensor, distance: Tensor, adversarial: Tensor) -> Tensor:
        """Keep the points that are adversarial and nearer; returns which (N,) bool."""
        better = adversarial & (distance < self.distance)
        self.adv = torch.where(rows_like(better, points), points.to(self.adv.dtype), self.adv)
        self.distance = torch.where(better, distance.to(self.distance.dtype), self.distance)
        return better


def keep_best(state: PrimalDualState, margin: Tensor) -> Tensor:
    """Replace the best point where the one just judged is adversarial and nearer, as the fused steps do; (N,) bool:
    where that was so."""
    better = (margin < 0) & (state.distance < state.best_distance)
    replace_rows_(state.best, better, state.adv)
    state.best_distance.copy_(torch.where(better, state.distance, state.best_distance))
    return better

"""Make an adversarial point nearer in l1 by forward passes alone: undo one of the elements that it changes, and change another in
its place, as far as any point found so far does.

Where training has put thresholds into the first layer, the gradient does not tell what an element is worth before it is changed
far; the points that other runs led to do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model, rows_like
from pyrobust.attacks._queries import uniform
from pyrobust.attacks._search import is_adversarial

_GAIN = 0.003  # by how much nearer a trial is at least, in units of the distance before: less is not worth a place


class Changes:
    """What adversarial points change in the inputs.

    Attributes:
        furthest: like the inputs, the change of each element that is the largest of all points.
        total: the sum of the sizes of its changes.
    """

    def __init__(self, inputs: Tensor) -> None:
        self.furthest, self.total = torch.zeros_like(inputs), torch.zeros_like(inputs)

    def add(self, change: Tensor, adversarial: Tensor) -> None:
        """(N, …) from the inputs to a point of each sample, where that is adversarial."""
        change = torch.where(rows_like(adversarial, change), change, 0)
        size = change.abs()
        self.furthest = torch.where(size > self.furthest.abs(), change, self.furthest)
        self.total += size


@torch.no_grad()
def exchange_elements(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    points: Tensor,
    changes: Changes,
    bounds: Bounds,
    *,
    trials: int,
    targeted: bool,
    seed: int,
    sample_ids: Tensor,
    draw: int,
) -> Tensor:
    """Points nearer in l1 than ``points``, where such are found; others come back as they are.

    In each trial element i is undone and j changed as in v, the furthest changes, by no more than |rᵢ| − 0.003 ‖r‖₁: i is
    drawn in proportion to |rᵢ|, j among those that r leaves as they are in proportion to the sum of their changes. What is
    adversarial takes the point's place.

    Args:
        trials: forward passes.
        seed, sample_ids, draw: key the random numbers of the first trial; the next trials have the next draws.
    """
    best = points
    change = (points - inputs).flatten(1)
    furthest, total = changes.furthest.flatten(1), changes.total.flatten(1)
    for trial in range(trials):
        size = change.abs()
        own = size > 0
        # The largest log(u) / w, with u uniform, is at each element with a probability in proportion to its weight w.
        weight = torch.where(own, size, total)
        draws = uniform(sample_ids, size.shape[1], seed, draw + trial)
        race = torch.where(weight > 0, draws.log_() / weight, -math.inf)
        leaving = race.masked_fill(~own, -math.inf).argmax(1, keepdim=True)
        chance, entering = race.masked_fill(own, -math.inf).max(1, keepdim=True)
        room = size.gather(1, leaving) - _GAIN * ops.lp_norm(change, "l1").unsqueeze(1)
        most = room.clamp(min=0).to(size.dtype)
        tried = change.scatter(1, leaving, 0.0)
        tried.scatter_(1, entering, furthest.gather(1, entering).clamp(-most, most))
        reached = (inputs + tried.view_as(inputs)).clamp_(*bounds)
        possible = (room > 0) & (chance > -math.inf)
        nearer = is_adversarial(model(reached), labels, targeted) & possible.squeeze(1)
        best = torch.where(rows_like(nearer, best), reached, best)
        change = torch.where(nearer.unsqueeze(1), tried, change)
    return best

"""Make an adversarial point sparser: undo a pixel (or value), and let those that are left make up for it.

The l0 norm does not count how far a value goes, so within a set of pixels the search is one for corners of the box, and a
single step along the signs of the gradient mostly finds them. What is left is which pixels: they are dropped one by one, the
least needed first; once none can be missed, two at a time for one that the gradient asks for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model, logits_and_grad, rows_like
from pyrobust.attacks._descent import margin_and_seed
from pyrobust.attacks._polish import over_groups

_SUBSTITUTES = 8  # pixels tried in place of two
_PASSES = 2  # of a trial: what is left as it was, and at the corner that the gradient there asks for


def prune_groups(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    points: Tensor,
    grouping: str,
    bounds: Bounds,
    *,
    steps: int,
    targeted: bool,
) -> Tensor:
    """Sparser adversarial points than ``points``, where such are found; others come back as they are.

    To undo group g changes the margin by −Σ_{i ∈ g} ∂m/∂xᵢ · rᵢ to first order: the smaller that is, the earlier its turn.

    Args:
        steps: forward and backward passes, at most.
    """
    low, high = bounds
    best, margin = points, torch.empty(0)

    def seed_at(logits: Tensor) -> Tensor:
        nonlocal margin
        margin, seed = margin_and_seed(logits, labels, targeted)
        return seed

    def sums(values: Tensor) -> Tensor:
        return values.sum(1).flatten(1) if grouping == "pixel" else values.flatten(1)

    _, slope = logits_and_grad(model, best, seed_at)
    adversarial = margin < 0
    kept = sums((best != inputs).to(slope.dtype)) > 0  # (N, groups)
    turn = torch.zeros_like(labels)
    for _ in range((steps - 1) // _PASSES):
        count = kept.sum(1).clamp_(min=1)
        order = sums(slope * (inputs - best)).masked_fill_(~kept, math.inf).argsort(dim=1, stable=True)
        # What a group outside could do for the margin, at the better of its bounds.
        gain = sums(torch.maximum(slope * (inputs - low), slope * (inputs - high)))
        outside = gain.masked_fill_(kept, -math.inf).topk(min(_SUBSTITUTES, gain.shape[1]), dim=1).indices

        rank = turn % count
        swaps = (turn >= count) & (count > 1)
        substitute = (turn // count - 1).clamp_(0, outside.shape[1] - 1)
        second = (rank == 0).to(rank.dtype)  # the least needed of the others
        tried = kept.scatter(1, order.gather(1, rank.unsqueeze(1)), False)
        tried = torch.where(swaps.unsqueeze(1), tried.scatter(1, order.gather(1, second.unsqueeze(1)), False), tried)
        added = torch.zeros_like(kept).scatter_(1, outside.gather(1, substitute.unsqueeze(1)), swaps.unsqueeze(1))
        free = over_groups(tried | added, inputs, grouping)
        start = torch.where(over_groups(added, inputs, grouping), torch.where(slope > 0, low, high), best)
        trial = torch.where(free, start, inputs)

        found = torch.zeros_like(adversarial)
        for _ in range(_PASSES):
            _, grad = logits_and_grad(model, trial, seed_at)
            better = adversarial & (margin < 0) & ~found & (count > 1)
            chosen = rows_like(better, best)
            best, slope = torch.where(chosen, trial, best), torch.where(chosen, grad, slope)
            found |= better
            corner = torch.where(grad > 0, low, torch.where(grad < 0, high, trial))
            trial = torch.where(free, corner.to(trial.dtype), trial)
        kept = torch.where(found.unsqueeze(1), sums((best != inputs).to(slope.dtype)) > 0, kept)
        turn = torch.where(found, 0, turn + 1)
    return best

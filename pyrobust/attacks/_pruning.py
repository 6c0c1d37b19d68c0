"""Make an adversarial point sparser: undo pixels (or values) that are not needed, and exchange others until one is not.

The l0 norm does not count how far a value goes, so within a set of pixels the search is one for corners of the box, which the
signs of the gradient mostly tell. What is left is which pixels. Those go from one end of their range to the other: the gradient
can only tell which few changes are worth a forward pass.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust._checks import Bounds
from pyrobust.attacks._common import FORWARDS, Model, logits_and_grad, rows_like
from pyrobust.attacks._descent import margin_and_seed
from pyrobust.attacks._polish import over_groups

_TRIALS = 32  # changes that are judged by a forward pass, for each gradient
_LEAVING = 4  # pixels that may be exchanged for others: the least needed
_TENURE = 5  # rounds that a pixel which was exchanged stays away


def rounds_within(steps: int) -> int:
    """How many rounds, of a gradient and 32 forward passes each, take as long as so many gradients."""
    return FORWARDS * steps // (FORWARDS + _TRIALS)


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

    A group g that is undone changes the margin by −Σ_{i ∈ g} ∂m/∂xᵢ · rᵢ to first order, one that goes to the better of its
    bounds by Σ_{i ∈ g} min(∂m/∂xᵢ · (low − xᵢ), ∂m/∂xᵢ · (high − xᵢ)). In each round a point that is adversarial loses, the least
    needed first, what it can do without; if that is nothing, the group whose loss leaves the lowest margin. From there on
    a round exchanges one group for another, whichever of the likeliest pairs leads to the lowest margin, be it higher
    than before, until the point is adversarial again: a tabu search (Glover 1989) among sets of one group less. Where
    what there is does better still at its corners, it goes there instead.

    Args:
        steps: gradients that it takes as long as, at most (:func:`rounds_within`).
    """
    low, high = bounds
    highest = inputs.new_full((), high)  # two plain numbers would be rounded to float32
    margin = torch.empty(0)

    def seed_at(logits: Tensor) -> Tensor:
        nonlocal margin
        margin, seed = margin_and_seed(logits, labels, targeted)
        return seed

    def sums(values: Tensor) -> Tensor:
        return values.sum(1).flatten(1) if grouping == "pixel" else values.flatten(1)

    def at(number: Tensor) -> Tensor:
        return over_groups(group == number.unsqueeze(1), inputs, grouping)

    best = work = points
    group = torch.arange(sums(inputs[:1]).shape[1], device=inputs.device)
    shape = len(inputs), len(group)
    # The last round that a group stays away.
    away_until = torch.full(shape, -1, dtype=torch.int32, device=inputs.device)
    for number in range(rounds_within(steps)):
        _, slope = logits_and_grad(model, work, seed_at)
        drops = margin < 0
        kept = sums((work != inputs).to(slope.dtype)) > 0  # (N, groups)
        loss = sums(slope * (inputs - work)).masked_fill_(~kept, math.inf)
        gain = sums(torch.maximum(slope * (inputs - low), slope * (inputs - high)))
        gain = gain.masked_fill_(kept | (away_until >= number) | (gain <= 0), -math.inf)
        leaving, entering = _changes(loss, gain, drops)
        corner = torch.where(slope > 0, low, highest)

        pushed = torch.where(over_groups(kept, inputs, grouping) & rows_like(~drops, work), corner, work)
        valid = leaving >= 0
        valid[0] |= (pushed != work).flatten(1).any(1)
        chosen, lowest, left = work, torch.full_like(margin, math.inf), torch.full_like(labels, -1)
        for trial in range(_TRIALS):
            goes_on = drops & (lowest < 0)
            base = pushed if trial == 0 else torch.where(rows_like(goes_on, work), chosen, work)
            changed = torch.where(at(leaving[trial]), inputs, base)
            changed = torch.where(at(entering[trial]), corner, changed)
            with torch.no_grad():
                reached, _ = margin_and_seed(model(changed), labels, targeted)
            better = valid[trial] & torch.where(goes_on, reached < 0, reached < lowest)
            if trial == 0:  # corners that do not lower the margin would be left and gone to for ever
                better &= drops | (reached < margin)
            chosen = torch.where(rows_like(better, work), changed, chosen)
            lowest, left = torch.where(better, reached, lowest), torch.where(better, leaving[trial], left)
        away_until = torch.where((group == left.unsqueeze(1)) & ~drops.unsqueeze(1), number + _TENURE, away_until)
        best = torch.where(rows_like(lowest < 0, best), chosen, best)
        work = chosen
    return best


def _changes(loss: Tensor, gain: Tensor, drops: Tensor) -> tuple[Tensor, Tensor]:
    """Which group leaves and which enters, int64 (trials, N), in the order that they are tried; −1: none.

    Args:
        loss: (N, groups): by how much the margin rises when a group is undone; inf where there is nothing to undo.
        gain: by how much it falls when one enters; −inf where it may not.
        drops: (N,) bool: where none is to enter.
    """
    losses, order = loss.topk(min(_TRIALS, loss.shape[1]), dim=1, largest=False)
    undone, least = order.masked_fill(losses.isinf(), -1), order[:, :_LEAVING]
    gains, enter = gain.topk(min(_TRIALS, gain.shape[1]), dim=1)
    worth = (gains.unsqueeze(2) - losses[:, :_LEAVING].unsqueeze(1)).flatten(1)
    worth, pair = worth.topk(min(_TRIALS - 1, worth.shape[1]), dim=1)
    pairs = torch.stack([least.gather(1, pair % least.shape[1]), enter.gather(1, pair // least.shape[1])])
    leave, enter = F.pad(pairs.masked_fill_(worth.isinf(), -1), (1, 0), value=-1)

    def full(part: Tensor) -> Tensor:  # images may have fewer groups than there are trials
        return F.pad(part, (0, _TRIALS - part.shape[1]), value=-1).T

    return torch.where(drops, full(undone), full(leave)), full(enter).masked_fill(drops, -1)

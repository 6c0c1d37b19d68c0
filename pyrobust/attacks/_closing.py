"""Refinement of adversarial points: steepest ascent within a ball that is always a little smaller than the nearest found.

Beside the primal-dual steps it gives up nothing of the distance to gain margin, and its steps are as long as the ball
allows: on adversarially trained networks it ends nearer in linf and l1 than a primal-dual run of the same length, and
at tens of steps in l2 too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import Callback, Model, logits_and_grad
from pyrobust.attacks._descent import margin_and_seed
from pyrobust.attacks._search import keep_best
from pyrobust.attacks._sparse import sparse_l1_step_
from pyrobust.ops import PrimalDualState

# First and last, falling exponentially: by how much the ball is smaller than the nearest point; for l1 the share of the
# nearest perturbation's non-zero values that a step moves.
_MARGIN = (0.1, 0.0005)
_KEEP = (0.5, 0.15)
_SETTLES = 60  # steps: in fewer, sizes fall no faster, as most of the way is still to go
_LARGEST_MARGIN = 0.5  # of a ball whose last point was adversarial as well: there the margin doubles at each step
_DEVIATION = 7.0  # of the logits over the classes


def close_in(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    state: PrimalDualState,
    norm: str,
    *,
    steps: int,
    first: int,
    step_size: tuple[float, float],
    targeted: bool,
    bounds: Bounds,
    callback: Callback | None,
) -> bool:
    """Steps ``first`` … ``steps`` − 1 from ``state.adv``, whose sizes fall exponentially from the first to the last of
    ``step_size``, in units of ε (within fewer than 60 steps, not as far); True where the callback asked to stop.

    x' ← Π(x' + α ε v), v the signs of the gradient (linf), its direction (l2), or the signs of its largest values (l1), and Π
    onto {‖x' − x‖ ≤ ε} ∩ bounds with ε = (1 − γ) · nearest distance; the whole box where nothing was found yet. In l1 the gradient
    is the margin's; in linf and l2 first the cross-entropy's, which weighs all classes, and from the middle of the steps on the
    margin's: where boundaries are flat, the cross-entropy's alone ends a percent farther. Leaves the last point, not yet
    predicted, in ``state``.
    """
    low, high = bounds
    farthest = ops.lp_norm(torch.maximum(inputs - low, high - inputs), norm)
    margin = state.distance
    rate = torch.zeros_like(state.distance)
    by_margin = norm == "l1"

    def ascent(logits: Tensor) -> Tensor:
        nonlocal margin
        margin, seed = margin_and_seed(logits, labels, targeted)
        if by_margin:
            return seed.neg_()
        towards = _others(logits.to(seed.dtype), labels).scatter_(1, labels.unsqueeze(1), -1.0)
        return towards.neg_() if targeted else towards

    for k in range(first, steps):
        by_margin |= 2 * k >= first + steps
        part = (k - first) / max(steps - first, _SETTLES)
        least, share, keep = (a * (b / a) ** part for a, b in (_MARGIN, step_size, _KEEP))
        _, grad = logits_and_grad(model, state.adv, ascent)
        rate = torch.where(keep_best(state, margin), (2 * rate).clamp_(least, _LARGEST_MARGIN), least)
        eps = torch.where(state.best_distance < math.inf, (1 - rate) * state.best_distance, farthest)
        if norm != "l1":
            ops.pgd_step_(state.adv, grad, inputs, EXPONENTS[norm], eps, share * eps, bounds)
        else:
            can_move = grad.sign().mul_(high - low).add_(state.adv).clamp_(low, high).ne(state.adv)
            count = (keep * ops.lp_norm(state.best - inputs, "l0", "value")).round_()
            sparse_l1_step_(state.adv, grad.mul_(can_move), inputs, eps, count, share * eps, bounds)
        state.distance.copy_(ops.lp_norm(state.adv - inputs, norm))
        if callback is not None and callback(k, state):
            return True
    return False


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, K): softmax over the classes but the label, 0 for that, the logits of each row scaled to one deviation.

    With −1 for the label that is the direction of the cross-entropy's gradient, which itself vanishes in the rounding where
    the label is certain.
    """
    deviation, mean = torch.std_mean(logits, 1, keepdim=True)
    scaled = (logits - mean) * (_DEVIATION / deviation.clamp(min=1e-30))
    return torch.softmax(scaled.scatter_(1, labels.unsqueeze(1), -math.inf), 1)

"""Make an adversarial point nearer by forward passes, and a backward pass at most."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import Model, logits_and_grad, rows_like
from pyrobust.attacks._descent import margin_and_seed
from pyrobust.attacks._losses import margin
from pyrobust.attacks._search import Nearest, is_adversarial

_MOST_GROUPS = 64
_BEYOND = (0.001, 0.004, 0.016, 0.064)  # the plane: by how much of the way to it


@torch.no_grad()
def bisect_to_boundary(
    model: Model, inputs: Tensor, labels: Tensor, nearest: Nearest, norm: str, steps: int, targeted: bool = False
) -> None:
    """Shorten the perturbations found by bisection along them; ``steps`` forward passes."""
    shift = nearest.adv.to(nearest.distance.dtype) - inputs
    low = torch.zeros_like(nearest.distance)
    high = torch.ones_like(low)
    for _ in range(steps):
        middle = (low + high) / 2
        points = torch.addcmul(inputs.to(shift.dtype), shift, rows_like(middle, shift)).to(inputs.dtype)
        adversarial = is_adversarial(model(points), labels, targeted)
        nearest.offer(points, ops.lp_norm(points - inputs, norm), adversarial)
        low, high = torch.where(adversarial, low, middle), torch.where(adversarial, middle, high)


def project_to_boundary(
    model: Model, inputs: Tensor, labels: Tensor, nearest: Nearest, norm: str, bounds: Bounds, targeted: bool = False
) -> None:
    """Turn the perturbations found into the direction that is shortest where the boundary is flat, for linf and l2; one
    backward pass and five forward passes.

    With w the gradient of the margin at x + r and v its dual direction: r' = (⟨w, r⟩ / ⟨w, v⟩) · v is the least perturbation that
    reaches the plane through x + r across w. v is 0, and found without them, at values that could only leave the bounds. Tried at
    a few lengths beyond that. Where perturbations are small, boundaries are flat, and the searches end a few percent beyond this
    one for want of steps.

    Source: Abdollahpour et al. 2024 (SuperDeepFool), §3, with the dual direction in place of the gradient.
    """
    low, high = bounds
    _, slope = logits_and_grad(model, nearest.adv, lambda logits: margin_and_seed(logits, labels, targeted)[1])
    blocked = torch.where(slope > 0, inputs <= low, inputs >= high)
    direction = ops.dual_normalize(slope.masked_fill(blocked, 0), EXPONENTS[norm])
    shift = nearest.adv - inputs
    reach, slant = (torch.linalg.vecdot(slope.flatten(1), part.flatten(1)) for part in (shift, direction))
    shortest = direction * rows_like(reach / torch.where(slant == 0, 1, slant), direction)
    with torch.no_grad():
        for beyond in _BEYOND:
            points = torch.add(inputs, shortest, alpha=1 + beyond).clamp_(low, high)
            adversarial = is_adversarial(model(points), labels, targeted)
            nearest.offer(points, ops.lp_norm(points - inputs, norm), adversarial)


@torch.no_grad()
def drop_groups(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    nearest: Nearest,
    grouping: str,
    bounds: Bounds,
    targeted: bool = False,
) -> None:
    """Undo changed pixels (or values) one by one, the least first, as long as the point stays adversarial.

    First all changed values are pushed to the bounds, where that is more adversarial: the l0 norm does not count how far
    a value goes. Reads one number from the device: how many there are to undo, at most 64.
    """
    sign = -1.0 if targeted else 1.0
    low, high = bounds
    adv = nearest.adv
    extreme = torch.where(adv > inputs, high, torch.where(adv < inputs, low, inputs))
    further = sign * margin(model(extreme), labels) > sign * margin(model(adv), labels)
    best = torch.where(rows_like(further, adv), extreme, adv)
    sizes = _group_sizes(best - inputs, grouping)  # (N, groups)
    order = sizes.masked_fill(sizes == 0, torch.inf).argsort(dim=1, stable=True)
    count = (sizes > 0).sum(1)
    for rank in range(min(int(count.max()), _MOST_GROUPS)):
        undone = torch.zeros_like(sizes, dtype=torch.bool).scatter_(1, order[:, rank : rank + 1], True)
        points = torch.where(over_groups(undone, inputs, grouping), inputs, best)
        fooled = is_adversarial(model(points), labels, targeted)
        best = torch.where(rows_like(fooled, inputs), points, best)
        nearest.offer(best, ops.lp_norm(best - inputs, 0, grouping), fooled)


def _group_sizes(r: Tensor, grouping: str) -> Tensor:
    """(N, groups): the largest magnitude of each pixel over its channels, or each value's."""
    return r.abs().amax(1).flatten(1) if grouping == "pixel" else r.abs().flatten(1)


def over_groups(mask: Tensor, x: Tensor, grouping: str) -> Tensor:
    """A mask (N, groups), shaped to broadcast against ``x``."""
    return mask.reshape(len(x), 1, *x.shape[2:]) if grouping == "pixel" else mask.reshape(x.shape)

"""Make an adversarial point nearer by forward passes alone."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model, rows_like
from pyrobust.attacks._losses import margin
from pyrobust.attacks._search import is_adversarial

_BISECTIONS = 10  # to a thousandth of the perturbation
_MOST_GROUPS = 64


@torch.no_grad()
def bisect(model: Model, inputs: Tensor, labels: Tensor, adv: Tensor, targeted: bool) -> Tensor:
    """The point nearest to the inputs on the way to ``adv`` that bisection finds adversarial; ``adv`` where none is."""
    low = torch.zeros(len(inputs), dtype=inputs.dtype, device=inputs.device)
    high = torch.ones_like(low)
    best = adv
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        points = torch.lerp(inputs, adv, rows_like(middle, inputs))
        fooled = is_adversarial(model(points), labels, targeted)
        best = torch.where(rows_like(fooled, inputs), points, best)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return best


@torch.no_grad()
def drop_groups(
    model: Model, inputs: Tensor, labels: Tensor, adv: Tensor, grouping: str, targeted: bool, bounds: Bounds
) -> Tensor:
    """Undo changed pixels (or values) one by one, the least first, as long as the point stays adversarial.

    First all changed values are pushed to the bounds, where that is more adversarial: the l0 norm does not count how far
    a value goes. Reads one number from the device: how many there are to undo, at most 64.
    """
    sign = -1.0 if targeted else 1.0
    low, high = bounds
    extreme = torch.where(adv > inputs, high, torch.where(adv < inputs, low, inputs))
    further = sign * margin(model(extreme), labels) > sign * margin(model(adv), labels)
    best = torch.where(rows_like(further, adv), extreme, adv)
    sizes = _group_sizes(best - inputs, grouping)  # (N, groups)
    order = sizes.masked_fill(sizes == 0, torch.inf).argsort(dim=1, stable=True)
    count = (sizes > 0).sum(1)
    for rank in range(min(int(count.max()), _MOST_GROUPS)):
        undone = torch.zeros_like(sizes, dtype=torch.bool).scatter_(1, order[:, rank : rank + 1], True)
        points = torch.where(_over_groups(undone, inputs, grouping), inputs, best)
        fooled = is_adversarial(model(points), labels, targeted)
        best = torch.where(rows_like(fooled, inputs), points, best)
    return best


def polish(
    model: Model, inputs: Tensor, labels: Tensor, adv: Tensor, norm: str, grouping: str, targeted: bool, bounds: Bounds
) -> Tensor:
    """:func:`drop_groups` for l0, :func:`bisect` for every other norm."""
    if norm == "l0":
        return drop_groups(model, inputs, labels, adv, grouping, targeted, bounds)
    return bisect(model, inputs, labels, adv, targeted)


def _group_sizes(r: Tensor, grouping: str) -> Tensor:
    """(N, groups): the largest magnitude of each pixel over its channels, or each value's."""
    return r.abs().amax(1).flatten(1) if grouping == "pixel" else r.abs().flatten(1)


def _over_groups(mask: Tensor, x: Tensor, grouping: str) -> Tensor:
    """A mask (N, groups), shaped to broadcast against ``x``."""
    return mask.reshape(len(x), 1, *x.shape[2:]) if grouping == "pixel" else mask.reshape(x.shape)

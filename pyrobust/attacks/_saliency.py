"""The search of JSMA's saliency map: which value, or pair of values, scores highest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SCORES_AT_ONCE = 2**24


def best_single(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The value i of each row with the largest a_i · b_i among those with a_i > 0 and b_i > 0.

    Args:
        a, b: (N, D); −inf shuts a value out.

    Returns:
        (index (N, 1), whether there is any (N,)).
    """
    best, index = (_positive(a) * _positive(b)).max(1, keepdim=True)
    return index, best.squeeze(1) > 0


def best_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The pair p ≠ q of each row with the largest (a_p + a_q)(b_p + b_q) among those with both sums > 0.

    Exact, without scoring all pairs: say r covers p when a_r ≥ a_p and b_r ≥ b_p. To put r in the place of p lowers no
    sum, so a best pair exists in which neither is covered by two others: it lies in the two outermost layers of points
    that none, or none but the first layer, cover. These are found by sorting; only their pairs are scored, in chunks.

    Args:
        a, b: (N, D), D ≥ 2; −inf shuts a value out.

    Returns:
        (indices (N, 2), whether there is any (N,)). Reads one number, the size of the largest layers, from the device.
    """
    order = a.argsort(dim=1, descending=True, stable=True)
    a, b = a.gather(1, order), b.gather(1, order)
    first = _uncovered(b)
    kept = first | _uncovered(b.masked_fill(first, -math.inf))
    place = kept.cumsum(1)
    count = max(2, int(place[:, -1].amax()))
    slot = torch.where(kept, place - 1, count)
    columns = torch.arange(a.shape[1], device=a.device).expand_as(slot)
    index = slot.new_zeros(len(a), count + 1).scatter_(1, slot, columns)[:, :count]
    spare = torch.arange(count, device=a.device) >= place[:, -1:]
    a = _positive_scale(a.gather(1, index).masked_fill_(spare, -math.inf))
    b = _positive_scale(b.gather(1, index).masked_fill_(spare, -math.inf))
    best, flat = _best_of_all(a, b)
    pair = torch.stack([flat // count, flat % count], 1)
    return order.gather(1, index.gather(1, pair)), best > 0


def _best_of_all(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The largest score over all pairs (0: no pair is admissible), and p · M + q."""
    n, m = a.shape
    some_rows = max(1, _SCORES_AT_ONCE // m**2)
    some_p = max(1, min(m, _SCORES_AT_ONCE // m))
    best, flat = a.new_zeros(n), torch.zeros(n, dtype=torch.int64, device=a.device)
    for top in range(0, n, some_rows):
        rows = slice(top, top + some_rows)
        for start in range(0, m, some_p):
            p = slice(start, start + some_p)
            scores = (a[rows, p, None] + a[rows, None, :]).clamp_(min=0)
            scores.mul_((b[rows, p, None] + b[rows, None, :]).clamp_(min=0))
            scores.diagonal(start, 1, 2).zero_()
            value, at = scores.flatten(1).max(1)
            better = value > best[rows]
            flat[rows] = torch.where(better, at + start * m, flat[rows])
            best[rows] = torch.where(better, value, best[rows])
    return best, flat


def _uncovered(b: Tensor) -> Tensor:
    """Of points in falling order of a: those whose b exceeds that of all before."""
    before = b.cummax(1).values[:, :-1]
    return b > torch.cat([torch.full_like(b[:, :1], -math.inf), before], 1)


def _positive_scale(values: Tensor) -> Tensor:
    """Each row over its largest value, where that is positive: the order of the products is the same, and they do not
    underflow."""
    return values / values.amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)


def _positive(values: Tensor) -> Tensor:
    return _positive_scale(values).clamp_(min=0)

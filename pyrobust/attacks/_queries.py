"""What attacks without gradients, and those that drop finished samples, share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.attacks._common import rows_like
from pyrobust.attacks._search import Nearest

_VALUES_AT_ONCE = 2**17


def uniform(sample_ids: Tensor, count: int, seed: int, step: int) -> Tensor:
    """(N, count) float32, uniform in [0, 1] with both ends; a row depends on (seed, its id, step, count) alone."""
    like = torch.empty(len(sample_ids), count, device=sample_ids.device)
    return ops.sample_lp_ball(like, math.inf, 0.5, seed=seed, sample_ids=sample_ids, step=step).add_(0.5).clamp_(0, 1)


def below(draws: Tensor, count: int) -> Tensor:
    """The integer in 0 … count − 1 that a draw of :func:`uniform` stands for."""
    return (draws * count).long().clamp_(max=count - 1)


def score(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """(N,) what score-based attacks lower: log p / (1 − p) of the label, negated for targets; inf for NaN.

    It orders points as p does, which in float32 is 1 for every point far from the boundary.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    y = labels.unsqueeze(1)
    value = logits.gather(1, y).squeeze(1) - logits.scatter(1, y, -math.inf).logsumexp(1)
    return (-value if targeted else value).nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)


def points_at_once(values: int) -> int:
    """How many points of so many values each a sample may have in one query: its share of the memory, and not a
    function of the batch, so that results do not depend on it."""
    return max(1, min(64, _VALUES_AT_ONCE // values))


def unfinished(done: Tensor, *state: Tensor) -> list[Tensor]:
    """The rows of ``state`` that are not done. Waits for the device."""
    keep = (~done).nonzero().squeeze(1)
    return [rows.index_select(0, keep) for rows in state]


def offer_rows(nearest: Nearest, rows: Tensor, points: Tensor, distance: Tensor, adversarial: Tensor) -> None:
    """:meth:`Nearest.offer` for the samples ``rows`` of the batch."""
    best, best_distance = nearest.adv.index_select(0, rows), nearest.distance.index_select(0, rows)
    better = adversarial & (distance < best_distance)
    best = torch.where(rows_like(better, points), points.to(best.dtype), best)
    nearest.adv = nearest.adv.index_copy(0, rows, best)
    distance = torch.where(better, distance.to(best_distance.dtype), best_distance)
    nearest.distance = nearest.distance.index_copy(0, rows, distance)

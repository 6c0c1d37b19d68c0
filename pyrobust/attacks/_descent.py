"""What penalty and norm-adaptive attacks share: the margin and its gradient, random starts, and the search for each
sample's constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds

LARGEST_CONST = 1e10
_CHECKS = 10  # of a stage: whether its objective still falls
_FALLS = 0.9999  # and by how much it has to


def margin_and_seed(logits: Tensor, labels: Tensor, targeted: bool) -> tuple[Tensor, Tensor]:
    """The margin z_y − max_{i ≠ y} z_i (its negative when targeted), below 0 iff adversarial, and its gradient.

    Returns:
        (margin (N,), gradient with respect to the logits (N, K)), in float32 at least; the margin of a row with NaN is
        NaN.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    y = labels.unsqueeze(1)
    best, other = logits.scatter(1, y, -math.inf).max(1, keepdim=True)
    sign = -1.0 if targeted else 1.0
    margin = (logits.gather(1, y) - best).squeeze(1)
    seed = torch.zeros_like(logits).scatter_(1, y, sign).scatter_(1, other, -sign)
    return (-margin if targeted else margin), seed


def start_of(run: int, inputs: Tensor, best: Tensor, p: float, bounds: Bounds, seed: int, sample_ids: Tensor) -> Tensor:
    """Where a run starts: the first at the inputs, later ones uniformly in the ball that reaches the nearest
    adversarial point so far (a radius of the width of ``bounds`` where none is known), cut to ``bounds``.

    Source: Carlini and Wagner 2017, §VI-B ("multiple starting-point gradient descent").
    """
    if run == 0:
        return inputs.clone()
    low, high = bounds
    reach = ops.lp_norm(best - inputs, p)
    radius = torch.where(reach > 0, reach, high - low)
    offset = ops.sample_lp_ball(inputs, p, radius, seed=seed, sample_ids=sample_ids, step=run)
    return offset.add_(inputs).clamp_(low, high)


class Stages:
    """The stages of each sample's run: up to ``steps`` descent steps with one constant, then the next constant.

    This replaces the early abort of whole batches: ten times a stage it is checked which samples' objectives have
    stopped falling, and those go on to their next stage by themselves, without any word to the host. So a sample that
    converges early tries more constants in the same number of steps.

    Attributes:
        step: (N,), steps taken in the stage of each sample, this one included.
    """

    def __init__(self, rows: Tensor, steps: int, abort_early: bool) -> None:
        self.step = torch.zeros_like(rows)
        self._previous = torch.full_like(rows, math.inf)
        self._window = max(1, steps // _CHECKS) if abort_early else steps
        self._last = steps - self._window
        self._abort_early = abort_early
        self._taken = 0

    def begin_step(self) -> bool:
        """Count a step; whether it is followed by a check (the same for all samples, and known to the host)."""
        self.step.add_(1)
        self._taken += 1
        return self._taken % self._window == 0

    def over(self, objective: Tensor, settled: Tensor | None = None) -> Tensor:
        """Check: (N,) bool, whose stage is over; their counts start again.

        Args:
            objective: (N,), what each sample descends.
            settled: (N,) bool: who has nothing left to gain.
        """
        over = self.step > self._last
        if self._abort_early:
            over |= objective > _FALLS * self._previous
            if settled is not None:
                over |= settled
        self._previous = torch.where(over, math.inf, objective)
        self.step.masked_fill_(over, 0)
        return over


class ConstantSearch:
    """The constant c of each sample in min distance + c · loss: times ten until it succeeds, then bisection.

    Attributes:
        const: (N,).
        found: (N,) bool, to be set by the attack: who was adversarial with this constant.
        stages: of the samples' descents.
    """

    def __init__(self, rows: Tensor, const: float, steps: int, abort_early: bool = True) -> None:
        self.const = torch.full_like(rows, const)
        self.found = torch.zeros_like(rows, dtype=torch.bool)
        self.stages = Stages(rows, steps, abort_early)
        self._lower = torch.zeros_like(rows)
        self._upper = torch.full_like(rows, math.inf)

    def advance(self, objective: Tensor) -> Tensor:
        """Check, as :meth:`Stages.over`; (N,) bool, who starts anew with another constant."""
        over = self.stages.over(objective)
        self._upper = torch.where(over & self.found, torch.minimum(self._upper, self.const), self._upper)
        self._lower = torch.where(over & ~self.found, torch.maximum(self._lower, self.const), self._lower)
        other = torch.where(self._upper.isfinite(), (self._lower + self._upper) / 2, self.const * 10)
        self.const = torch.where(over, other, self.const).clamp_(max=LARGEST_CONST)
        self.found &= ~over
        return over

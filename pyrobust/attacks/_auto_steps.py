"""One run of Auto-PGD: its moves, its checkpoints and what they change. Decisions are masks over the samples: nothing
synchronises with the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._budget import Found, PgdState, logits_loss_grad, loss_of
from pyrobust.attacks._common import Callback, Model, replace_rows_, rows_like
from pyrobust.attacks._search import is_adversarial
from pyrobust.attacks._sparse import sparse_l1_step_


def phases(eps: float, steps: int, large_eps: bool) -> list[tuple[float, int]]:
    """(radius, steps) of each part of a run."""
    if not large_eps:
        return [(eps, steps)]
    if steps < 3:
        raise ValueError(f"steps: expected at least 3 with large_eps, got {steps}")
    part = min(math.ceil(0.3 * steps), (steps - 1) // 2)
    return [(3 * eps, part), (2 * eps, part), (eps, steps - 2 * part)]


def checkpoints(steps: int, p: float) -> dict[int, int]:
    """The steps after which a sample's progress is judged, and how many steps each judgement covers."""
    every = max(int((0.04 if p == 1 else 0.22) * steps), 1)
    shrink, least = (0, every) if p == 1 else (max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    found, at = {}, every
    while at < steps:
        found[at] = every
        every = max(every - shrink, least)
        at += every
    return found


class MomentumSteps:
    """The moves in linf and l2: a step in the dual direction and a quarter of the move before."""

    def __init__(self, adv: Tensor, inputs: Tensor, p: float, eps: float, bounds: Bounds, rho: float) -> None:
        self.inputs, self.p, self.eps, self.bounds, self.rho = inputs, p, eps, bounds, rho
        wide = torch.promote_types(inputs.dtype, torch.float32)
        self.step_size = torch.full((len(inputs),), 2 * eps, dtype=wide, device=inputs.device)
        self.previous: Tensor | None = None
        self.spare = torch.empty_like(adv)
        self.halved = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        self.last_value: Tensor | None = None

    def move(self, adv: Tensor, grad: Tensor) -> Tensor:
        """The next point, in a buffer of its own."""
        target, self.spare = self.spare, self.previous if self.previous is not None else torch.empty_like(adv)
        ball = (self.inputs, self.p, self.eps)
        ops.pgd_step_(target.copy_(adv), grad, *ball, self.step_size, self.bounds)
        if self.previous is not None:
            target.mul_(0.75).add_(adv, alpha=0.5).sub_(self.previous, alpha=0.25)
            ops.pgd_step_(target, target, *ball, 0.0, self.bounds)  # the projection alone
        self.previous = adv
        return target

    def judge(self, best: Tensor, best_value: Tensor, first_value: Tensor, rises: Tensor, every: int) -> Tensor:
        """Halve the step size of samples without progress; returns which (N,) bool go back to their best point."""
        last_value = first_value if self.last_value is None else self.last_value
        # The paper asks for fewer rises than a share rho; the authors' code, as here, for no more.
        self.halved = (rises <= self.rho * every) | (~self.halved & (last_value >= best_value))
        self.last_value = best_value
        self.step_size = torch.where(self.halved, self.step_size / 2, self.step_size)
        return self.halved


class SparseSteps:
    """The moves in l1: the signs of the largest gradients, as many as the best perturbation so far suggests."""

    def __init__(self, adv: Tensor, inputs: Tensor, eps: float, bounds: Bounds, warm: bool) -> None:
        self.inputs, self.eps, self.bounds = inputs, eps, bounds
        self.size = inputs[0].numel()
        wide = torch.promote_types(inputs.dtype, torch.float32)
        self.step_size = torch.full((len(inputs),), eps, dtype=wide, device=inputs.device)
        self.support = self._support(adv) if warm else torch.full_like(self.step_size, self.size)
        self.share = self.support / self.size / 1.5 if warm else torch.full_like(self.step_size, 0.2)

    def _support(self, points: Tensor) -> Tensor:
        return ops.lp_norm(points - self.inputs, 0)

    def move(self, adv: Tensor, grad: Tensor) -> Tensor:
        """The next point, in place."""
        keep = self.size - ((1 - self.share) * self.size).floor()
        sparse_l1_step_(adv, grad, self.inputs, self.eps, keep, self.step_size, self.bounds)
        return adv

    def judge(self, best: Tensor, best_value: Tensor, first_value: Tensor, rises: Tensor, every: int) -> Tensor:
        """Shrink the step size, or start afresh where the support shrank: returns which (N,) bool, those go back to
        their best point."""
        support = self._support(best)
        shrank = support < 0.95 * self.support
        self.step_size = (self.step_size / 1.5).clamp_(min=self.eps / 10).masked_fill_(shrank, self.eps)
        self.support, self.share = support, support / self.size / 1.5
        return shrank


class Climb:
    """What stays the same over the runs of an attack."""

    def __init__(
        self,
        model: Model,
        inputs: Tensor,
        p: float,
        rho: float,
        bounds: Bounds,
        found: Found,
        callback: Callback | None,
    ) -> None:
        self.model, self.inputs, self.p, self.rho, self.bounds = model, inputs, p, rho, bounds
        self.found, self.callback = found, callback

    def run(self, adv: Tensor, plan: list[tuple[float, int]], loss: Callable[[Tensor], Tensor]) -> bool:
        """Ascend from ``adv``, which is overwritten, and keep what is found; True where the callback asks to stop."""
        best: Tensor | None = adv
        for part, (eps, steps) in enumerate(plan):
            if part > 0:
                ops.pgd_step_(adv, adv, self.inputs, self.p, eps, 0.0, self.bounds)  # the projection alone
            method: MomentumSteps | SparseSteps
            if self.p == 1:
                method = SparseSteps(adv, self.inputs, eps, self.bounds, warm=part > 0)
            else:
                method = MomentumSteps(adv, self.inputs, self.p, eps, self.bounds, self.rho)
            best = self._ascend(adv, method, steps, loss, within=part == len(plan) - 1)
            if best is None:
                return True
            adv = best
        self.found.settle(adv)
        return False

    def _ascend(
        self,
        adv: Tensor,
        method: MomentumSteps | SparseSteps,
        steps: int,
        loss: Callable[[Tensor], Tensor],
        within: bool,
    ) -> Tensor | None:
        """The point of highest loss, None where the callback asked to stop; ``within``: the points count as results."""
        checks = checkpoints(steps, self.p)
        best = adv.clone()
        logits, value, grad = logits_loss_grad(self.model, adv, loss)
        best_value, best_grad, first_value = value, grad.clone(), value
        rises = torch.zeros_like(value)
        for step in range(steps + 1):
            if step > 0:
                adv, before = method.move(adv, grad), value
                if step < steps:
                    logits, value, grad = logits_loss_grad(self.model, adv, loss)
                else:
                    with torch.no_grad():
                        logits = self.model(adv)
                        value = loss_of(logits, loss)
                rises += value > before
                better = value > best_value
                best_value = torch.where(better, value, best_value)
                replace_rows_(best, better, adv)
                if step < steps:
                    replace_rows_(best_grad, better, grad)
            found = self.found
            here = found.offer(adv, logits) if within else is_adversarial(logits, found.labels, found.targeted)
            if self.callback is not None and self.callback(step, PgdState(adv, here, found.adv)):
                return None
            if step in checks:
                back = method.judge(best, best_value, first_value, rises, checks[step])
                rises.zero_()
                replace_rows_(adv, back, best)
                grad = torch.where(rows_like(back, grad), best_grad, grad)
        return best

"""What attacks within a budget share: the checks of its arguments, starts, the points found, and the plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, check_labels, check_logits
from pyrobust.attacks._common import Callback, Model, clean_logits, differentiating, gradient, replace_rows_
from pyrobust.attacks._jacobian import forward
from pyrobust.attacks._search import is_adversarial

EXPONENTS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}

# Replaces the point in place: (point, gradient of the loss there, number of the step over all runs).
Move = Callable[[Tensor, Tensor, int], object]


class PgdState(NamedTuple):
    """What a callback sees: the point just predicted, where it was adversarial, and the best so far."""

    adv: Tensor
    adversarial: Tensor
    best: Tensor


def starts(
    inputs: Tensor, p: float, eps: float, bounds: Bounds, random_start: bool, restarts: int, seed: int,
    sample_ids: Tensor, first: int = 0,
) -> Iterator[Tensor]:  # fmt: skip
    """The first point of each run: the input, or uniform in the ball, cut off at the bounds; every run after the first
    starts at random. The numbers drawn are keyed by steps ``first``, ``first`` + 1, …"""
    for run in range(restarts):
        adv = inputs.clone()
        if random_start or run > 0:
            adv += ops.sample_lp_ball(inputs, p, eps, seed=seed, sample_ids=sample_ids, step=first + run)
            adv.clamp_(*bounds)
        yield adv


class Found:
    """The last adversarial point of each sample that was seen, without synchronising with the device.

    Attributes:
        adv: like the inputs: that point; the input itself where it is adversarial already; else what ``settle`` left.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, clean: Tensor, targeted: bool) -> None:
        self.labels, self.targeted = labels, targeted
        self.open = ~is_adversarial(clean, labels, targeted)
        self.missing = self.open
        self.adv = inputs.clone()

    def offer(self, points: Tensor, logits: Tensor) -> Tensor:
        """Keep the points that are adversarial; returns which (N,) bool."""
        here = is_adversarial(logits, self.labels, self.targeted)
        replace_rows_(self.adv, here & self.open, points)
        self.missing = self.missing & ~here
        return here

    def settle(self, points: Tensor) -> None:
        """Take the points, where finite, of samples for which nothing was found."""
        finite = points.flatten(1).isfinite().all(1)
        replace_rows_(self.adv, self.missing & finite, points)


def loss_of(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss of each sample, in float32 at least."""
    return loss(logits.to(torch.promote_types(logits.dtype, torch.float32)))


class Begun(NamedTuple):
    """A forward pass whose backward pass is still to come: the leaf, and the logits that depend on it."""

    point: Tensor
    logits: Tensor


def begin(model: Model, inputs: Tensor, labels: Tensor, *, from_input: bool = True) -> tuple[Tensor, Begun | None]:
    """The logits at the inputs, as :func:`clean_logits`; and where the first step sets out from there, the forward pass that
    gave them, for it to go back through."""
    if not from_input:
        return clean_logits(model, inputs, labels), None
    begun = Begun(*forward(model, inputs))
    check_labels(labels, inputs, check_logits(begun.logits, len(inputs)))
    return begun.logits.detach(), begun


def logits_loss_grad(
    model: Model, adv: Tensor, loss: Callable[[Tensor], Tensor], begun: Begun | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass, unless it is ``begun``, and one backward pass: logits, loss of each sample (float32 at least) and its
    gradient, detached."""
    point, logits = forward(model, adv) if begun is None else begun
    with differentiating():
        value = loss_of(logits, loss)
        grad = gradient(value.sum(), point)
    return logits.detach(), value.detach(), grad


def ascend(
    model: Model, points: Iterable[Tensor], move: Move, found: Found, loss: Callable[[Tensor], Tensor], steps: int,
    callback: Callback | None, begun: Begun | None = None,
) -> Tensor:  # fmt: skip
    """``steps`` moves from each starting point, which is changed in place; what was found.

    Costs steps + 1 forward and steps backward passes for each starting point; one forward less where that at the first one is
    ``begun``.
    """
    for run, adv in enumerate(points):
        for step in range(steps + 1):
            if step < steps:
                logits, _, grad = logits_loss_grad(model, adv, loss, begun)
                begun = None
            else:
                with torch.no_grad():
                    logits = model(adv)
            here = found.offer(adv, logits)
            if step == steps:
                found.settle(adv)
            if callback is not None and callback(step, PgdState(adv, here, found.adv)):
                return found.adv
            if step < steps:
                move(adv, grad, run * steps + step)
    return found.adv

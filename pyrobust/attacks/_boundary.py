"""What DeepFool and its descendants share: a walk to the nearest class boundary that drops the samples that are done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import Callback, Model, check_count, clean_logits, rows_like
from pyrobust.attacks._jacobian import Boundary, nearest_boundary
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

DUAL = {"l1": "linf", "l2": "l2", "linf": "l1"}
EXPONENT = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
NUDGE = 1e-4  # of the width of the bounds, added to each step, so that none stalls at a boundary (as the authors' code does)
_DROP_EVERY = 5  # steps between two looks at which samples are done; on the CPU, where looking is free, each step


@dataclass
class Walk:
    """Samples on their way to the boundary; all tensors have one row a sample.

    Attributes:
        inputs, labels: of the call.
        classes: (N, k) the other classes that are considered.
        adv: the point to predict next.
        final: (N,) whether the walk ends if that point is adversarial.
        done: (N,) whether it has ended.
        best, distance: the nearest adversarial point so far, as in :class:`pyrobust.attacks._search.Nearest`.
        memory: what the method carries from step to step.
    """

    inputs: Tensor
    labels: Tensor
    classes: Tensor
    adv: Tensor
    final: Tensor
    done: Tensor
    best: Tensor
    distance: Tensor
    memory: tuple[Tensor, ...]

    def take(self, rows: Tensor) -> Walk:
        """The walk of some of the samples."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        memory = tuple(t.index_select(0, rows) for t in values.pop("memory"))
        return Walk(**{name: t.index_select(0, rows) for name, t in values.items()}, memory=memory)

    def put(self, rows: Tensor, part: Walk) -> None:
        """Take over the points of some of the samples."""
        for name in ("adv", "best", "distance"):
            getattr(self, name).index_copy_(0, rows, getattr(part, name))


# move(walk, boundary at walk.adv, where that point is adversarial): sets adv, final and memory.
Move = Callable[[Walk, Boundary, Tensor], None]


def likely_classes(logits: Tensor, labels: Tensor, candidates: int) -> Tensor:
    """(N, k) the most likely classes besides the label, most likely first."""
    check_count(candidates=candidates)
    others = logits.scatter(1, labels.unsqueeze(1), -math.inf)
    return others.topk(min(candidates, logits.shape[1] - 1), dim=1).indices


def walk_to_boundary(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    move: Move,
    memory: Callable[[Tensor], tuple[Tensor, ...]],
    *,
    norm: str,
    slope_norm: str,
    final: bool,
    keep_all: bool,
    candidates: int,
    steps: int,
    callback: Callback | None,
) -> Nearest:
    """Move from boundary to boundary; every argument is checked already.

    Args:
        model, inputs, labels, candidates, steps, callback: of the attack.
        move: the method's step.
        memory: its initial memory, from the inputs in float32 at least.
        norm: in which the nearest point is meant.
        slope_norm: in which the slope of a boundary is measured.
        final: whether the first point may end the walk.
        keep_all: whether adversarial points that do not end the walk count as well.
    """
    clean = clean_logits(model, inputs, labels)
    nearest = Nearest(inputs, is_adversarial(clean, labels, False))
    start = memory(inputs.to(nearest.distance.dtype))
    done = nearest.distance == 0
    classes = likely_classes(clean, labels, candidates)
    flags = torch.full_like(done, final)
    whole = Walk(inputs, labels, classes, inputs.clone(), flags, done, nearest.adv, nearest.distance, start)
    rows, part = torch.arange(len(inputs), device=inputs.device), whole
    every = 1 if inputs.device.type == "cpu" else _DROP_EVERY
    for step in range(steps + 1):
        if step % every == 0:
            left = (~part.done).nonzero().squeeze(1)  # synchronises
            if part is whole or len(left) < len(rows):
                if part is not whole:
                    whole.put(rows, part)
                if len(left) == 0:
                    return nearest
                rows, part = rows.index_select(0, left), part.take(left)
        if step < steps:
            at = nearest_boundary(model, part.adv, part.labels, part.classes, slope_norm, follow=True)
            logits = at.logits
        else:
            with torch.no_grad():
                logits = model(part.adv)
        adversarial = is_adversarial(logits, part.labels, False) & ~part.done
        counts = adversarial if keep_all else adversarial & part.final
        distance = ops.lp_norm(part.adv - part.inputs, norm)
        better = counts & (distance < part.distance)
        part.best = torch.where(rows_like(better, part.adv), part.adv, part.best)
        part.distance = torch.where(better, distance, part.distance)
        part.done |= adversarial & part.final
        if callback is not None:
            whole.put(rows, part)
            here = torch.zeros_like(done).index_copy(0, rows, adversarial)
            if callback(step, SearchState(whole.adv, here, whole.best, whole.distance)):
                break
        if step < steps:
            move(part, at, adversarial)
    whole.put(rows, part)
    return nearest


def step_to_boundary(at: Boundary, norm: str, bounds: Bounds, max_step: float = math.inf) -> Tensor:
    """The shortest step in the norm onto the linear model of the boundary, and a nudge more: (|gap| / slope + nudge) · v.

    ``at.slope`` is the dual norm of the normal, and v its dual direction; no step where the normal is zero.
    """
    length = (at.gap.abs() / at.slope).add_(NUDGE * (bounds[1] - bounds[0])).clamp_(max=max_step)
    direction = ops.dual_normalize(at.normal, EXPONENT[norm])
    return direction.mul_(rows_like(length.masked_fill(at.slope == 0, 0.0), direction))

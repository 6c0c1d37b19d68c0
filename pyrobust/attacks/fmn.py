"""Fast minimum norm: projected gradient descent in a ball whose radius follows the boundary, for l0, l1, l2 and
linf."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_grouping,
    check_positive,
    clean_logits,
    logits_and_grad,
    undisturbed,
)
from pyrobust.attacks._descent import margin_and_seed, start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_DUAL = {"l1": math.inf, "l2": 2, "linf": 1}
_START = {"l0": math.inf, "l1": 1, "l2": 2, "linf": math.inf}
_LAST_GAMMA = 0.001
_LAST_STEP = 0.01  # of the first


@judged_in_float32
def fmn(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    grouping: str | None = None,
    steps: int = 100,
    step_size: float = 1.0,
    gamma: float = 0.05,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x' ← Π(x' − α ∇m/‖∇m‖₂), m the margin z_y − max_{i ≠ y} z_i and Π onto {‖x' − x‖ ≤ ε} ∩ bounds.

    ε ← min((1 − γ) ε, best distance) where the point was adversarial, else (1 + γ) ε; before the first adversarial point
    at least ‖x' − x‖ + |m| / ‖∇m‖_q, the distance to the boundary were m linear. (That alone, as in the paper, ends on
    the boundary of a linear model and leaves the rest to rounding.) For l0, ε is a count that starts at 1 and moves by
    γ ε, and by 1 at least. α and γ fall on a cosine, to 0.01 α and 0.001.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "linf", "l2", "l1" or "l0" (or inf, 2, 1, 0).
        grouping: for l0: "pixel" (default for (N, C, H, W): the C values at a place count once) or "value" (default
            otherwise).
        steps: of each run.
        step_size: the first α, > 0, in units of the width of ``bounds``.
        gamma: the first γ, in (0, 1).
        restarts: runs; those after the first start at random within the distance of the best point so far.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) after each prediction; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 1 forward and restarts · steps backward passes.
    Source: Pintor et al. 2021, algorithm 1 and §2.2. The projections are exact: for l1, l2 and linf onto the ball, for
    l1 and linf onto ball ∩ bounds; l2 and l0 meet the bounds afterwards, which does not leave the ball.
    """
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    name = norm_name(norm)
    check_positive(step_size=step_size)
    check_positive(gamma=gamma, below=1)
    grouping = check_grouping(grouping, name, inputs)
    low, high = bounds
    margin = torch.empty(0)

    def descent(logits: Tensor) -> Tensor:
        nonlocal margin
        margin, rise = margin_and_seed(logits, labels, targeted)
        return rise.neg_()

    def distance_of(r: Tensor) -> Tensor:
        return ops.lp_norm(r, name, grouping)

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        farthest = distance_of(torch.maximum(inputs - low, high - inputs))
        for run in range(restarts):
            adv = start_of(run, inputs, nearest.adv, _START[name], bounds, seed, sample_ids)
            if name == "l0" and run > 0:
                count = nearest.distance.clamp(1, None).nan_to_num(posinf=1.0)
                adv = ops.project_l0_ball_(adv.sub_(inputs), count, grouping).add_(inputs)
            eps = torch.full_like(farthest, float(name == "l0"))
            found = torch.zeros_like(farthest, dtype=torch.bool)
            for step in range(steps):
                cosine = (1 + math.cos(math.pi * step / steps)) / 2
                alpha = (_LAST_STEP + (1 - _LAST_STEP) * cosine) * step_size * (high - low)
                rate = _LAST_GAMMA + (gamma - _LAST_GAMMA) * cosine
                distance = distance_of(adv - inputs)
                _, grad = logits_and_grad(model, adv, descent)
                adversarial = margin < 0
                nearest.offer(adv, distance, adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                found |= adversarial
                if name == "l0":
                    fewer = torch.minimum(eps - 1, (eps * (1 - rate)).floor_())
                    more = torch.maximum(eps + 1, (eps * (1 + rate)).floor_())
                else:
                    slope = ops.lp_norm(grad, _DUAL[name]).clamp_(min=torch.finfo(eps.dtype).tiny)
                    fewer = eps * (1 - rate)
                    more = eps * (1 + rate)
                    more = torch.where(found, more, torch.maximum(more, distance + margin.abs() / slope))
                eps = torch.where(adversarial, torch.minimum(fewer, nearest.distance), more)
                eps = torch.minimum(eps, farthest).clamp_(min=0)
                adv = _step(adv, grad, inputs, name, grouping, alpha, eps, bounds)
    return nearest.adv


fmn.norms = ("l0", "l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls


def _step(
    adv: Tensor, grad: Tensor, inputs: Tensor, name: str, grouping: str, alpha: float, eps: Tensor, bounds: Bounds
) -> Tensor:
    """Π(adv + alpha · grad / ‖grad‖₂); may overwrite ``adv`` and ``grad``."""
    if name == "l2":
        return ops.pgd_step_(adv, grad, inputs, 2, eps, alpha, bounds)
    if name == "linf":  # a step of the unit gradient into the box, and one of length 0 into ball ∩ box
        ops.pgd_step_(adv, grad, inputs, 2, math.inf, alpha, bounds)
        return ops.pgd_step_(adv, grad, inputs, math.inf, eps, 0.0, bounds)
    adv.add_(ops.dual_normalize_(grad, 2), alpha=alpha)
    if name == "l1":
        return ops.project_l1_box_(adv, inputs, eps, bounds)
    return ops.project_l0_ball_(adv.sub_(inputs), eps, grouping).add_(inputs).clamp_(*bounds)

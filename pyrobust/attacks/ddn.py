"""Decoupled direction and norm: a minimum-norm attack for l2 that follows the gradient on a sphere of changing
radius."""

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
    check_positive,
    clean_logits,
    logits_and_grad,
    rows_like,
    undisturbed,
)
from pyrobust.attacks._descent import start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_LAST_STEP = 0.01  # of the first, at the end of the cosine
_NEGLIGIBLE = 1e-12  # lost in rounding beside any step, yet a direction where there is no gradient


@judged_in_float32
def ddn(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 100,
    step_size: float = 1.0,
    radius: float = 1.0,
    gamma: float = 0.05,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """r ← r + α ∇/‖∇‖₂;  ε ← (1 − γ) ε where the point was adversarial, else (1 + γ) ε;  r ← box(ε r / ‖r‖₂).

    ∇ is the gradient of the cross-entropy, and α falls from ``step_size`` to a hundredth of it on a cosine.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" (or 2).
        steps: of each run.
        step_size: the first α, > 0, in units of the width of ``bounds``.
        radius: the first ε, > 0, in units of the width of ``bounds``.
        gamma: γ in (0, 1).
        restarts: runs; those after the first start at random within the distance of the best point so far.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, and the direction taken where the gradient at the input is zero;
            int64 sample_ids (N,) default to 0 … N − 1.
        callback: called as callback(step, SearchState) after each prediction; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 1 forward and restarts · steps backward passes.
    Source: Rony et al. 2019, algorithm 1, without the rounding to 256 levels; seed 003, §5.4 (1000 steps).
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    check_positive(step_size=step_size, radius=radius)
    check_positive(gamma=gamma, below=1)
    low, high = bounds
    width = high - low
    y = labels.unsqueeze(1)

    def seed_at(logits: Tensor) -> Tensor:
        # The gradient of the cross-entropy is (1 − p_y) times this. The factor is lost in ∇/‖∇‖, so without it the
        # direction is the same, and a confident model does not make it vanish.
        ascent = logits.scatter(1, y, -math.inf).softmax(1).scatter_(1, y, -1.0)
        return ascent.neg_() if targeted else ascent

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        farthest = ops.lp_norm(torch.maximum(inputs - low, high - inputs), 2)
        for run in range(restarts):
            adv = start_of(run, inputs, nearest.adv, 2, bounds, seed, sample_ids)
            r = ops.sample_lp_ball(inputs, 2, _NEGLIGIBLE * width, seed=seed, sample_ids=sample_ids).add_(adv - inputs)
            eps = torch.full_like(farthest, radius * width)
            for step in range(steps):
                distance = ops.lp_norm(r, 2)
                logits, grad = logits_and_grad(model, adv, seed_at)
                adversarial = is_adversarial(logits, labels, targeted)
                nearest.offer(adv, distance, adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                size = _LAST_STEP + (1 - _LAST_STEP) * (1 + math.cos(math.pi * step / steps)) / 2
                r.add_(ops.dual_normalize_(grad, 2), alpha=size * step_size * width)
                eps = torch.minimum(eps * torch.where(adversarial, 1 - gamma, 1 + gamma), farthest)
                r.mul_(rows_like(eps / ops.lp_norm(r, 2).clamp_(min=_NEGLIGIBLE**2), r))
                adv = torch.add(inputs, r).clamp_(low, high)
                torch.sub(adv, inputs, out=r)
    return nearest.adv


ddn.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

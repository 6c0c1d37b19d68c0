"""Elastic-net attack: a minimum-norm attack for l1 by accelerated proximal gradient steps on a penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_count,
    check_number,
    check_positive,
    clean_logits,
    logits_and_grad,
    rows_like,
    undisturbed,
)
from pyrobust.attacks._descent import ConstantSearch, margin_and_seed, start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial


@judged_in_float32
def ead(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l1",
    rule: str = "l1",
    beta: float = 0.01,
    steps: int = 1000,
    search_steps: int = 9,
    step_size: float = 0.01,
    const: float = 1e-3,
    confidence: float = 0.0,
    abort_early: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min over r of c · (m + κ)₊ + ‖r‖₂² + β ‖r‖₁ such that inputs + r is inside ``bounds``, by FISTA.

    m is the margin z_y − max_{i ≠ y} z_i and κ the ``confidence``; c is found by bisection, each search from the input.
    A step is a gradient step of size α on the first two terms from the extrapolated point, then the shrinkage S_β in
    the box: r ← box(sign(z) (|z| − β)₊), the exact prox of β ‖·‖₁ on the box. As in the paper its threshold is β itself
    rather than α β, so the weight of ‖r‖₁ that is minimised is β / α. r is in units of the width of ``bounds``.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l1" (or 1).
        rule: what "nearest" means among the adversarial points seen: "l1", or "en" for ‖r‖₂² + β ‖r‖₁.
        beta: β > 0.
        steps: with each constant.
        search_steps: constants tried, with ``abort_early`` at least; ``steps`` · ``search_steps`` are taken in all.
        step_size: the first α, > 0; it falls as √(1 − step / steps).
        const: the first c, > 0.
        confidence: κ ≥ 0, in the units of the logits: only points with margin below −κ count.
        abort_early: a sample whose objective has stopped falling goes on to its next constant at once.
        restarts: runs; those after the first start at random within the distance of the best point so far.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) after each step, counting over the constants; distances in it
            are those of ``rule``. The attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: 2 · restarts · search_steps · steps + 1 forward and restarts · search_steps · steps backward passes: the
    gradient is taken at the extrapolated point, and the point itself has to be judged.
    Source: Chen et al. 2018, eq. 7–10 and algorithm 1; seed 003, §5.4 (9 constants from 0.01, 1000 steps, β = 0.05, l1
    rule, no early abort).
    """
    norm_name(norm, ("l1",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    if rule not in ("l1", "en"):
        raise ValueError(f'rule: expected "l1" or "en", got {rule!r}')
    check_count(search_steps=search_steps)
    check_positive(beta=beta, step_size=step_size, const=const)
    check_number("confidence", confidence, 0)
    width = bounds[1] - bounds[0]

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        rows = nearest.distance
        for run in range(restarts):
            origin = start_of(run, inputs, nearest.adv, 1, bounds, seed, sample_ids)
            adv = ahead = origin
            search = ConstantSearch(rows, const, steps, abort_early)

            def seed_at(logits: Tensor, search: ConstantSearch = search) -> Tensor:
                margin, rise = margin_and_seed(logits, labels, targeted)
                # In units of the width the gradient is width times as large, and so is r = (adv − inputs) / width.
                return rise.mul_(torch.where(margin > -confidence, search.const * width**2, 0.0).unsqueeze(1))

            for step in range(steps * search_steps):
                due = search.stages.begin_step()
                count = search.stages.step - 1
                _, grad = logits_and_grad(model, ahead, seed_at)
                alpha = step_size * (1 - count / steps).sqrt_()
                r = ahead - inputs
                # r − α (c ∇m + 2 r)
                r.addcmul_(r, rows_like(alpha, r), value=-2).addcmul_(grad, rows_like(alpha, r), value=-1)
                before, adv = adv, ops.prox_l1_(r, beta * width).add_(inputs).clamp_(*bounds)
                ahead = before.lerp(adv, rows_like(1 + count / (count + 3), adv).to(adv.dtype)).clamp_(*bounds)

                with torch.no_grad():
                    margin = margin_and_seed(model(adv), labels, targeted)[0]
                r = adv - inputs
                l1, square = ops.lp_norm(r, 1) / width, (ops.lp_norm(r, 2) / width).square_()
                adversarial = margin < -confidence
                nearest.offer(adv, l1 * width if rule == "l1" else square + beta * l1, adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                search.found |= adversarial
                if due:
                    hinge = (margin + confidence).clamp_(min=0)
                    again = rows_like(search.advance(search.const * hinge + square + beta * l1), adv)
                    adv, ahead = torch.where(again, origin, adv), torch.where(again, origin, ahead)
    return nearest.adv


ead.norms = ("l1",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

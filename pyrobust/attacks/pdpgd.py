"""Primal-dual proximal gradient descent: a minimum-norm attack for linf, l2, l1, l0, or any function with a prox."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_grouping,
    check_starts,
    rows_like,
)
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._primal_dual import Step, primal_dual
from pyrobust.attacks._runs import CLOSING_L2, Closing, Schedule
from pyrobust.attacks._search import keep_best
from pyrobust.attacks._tuning import Tuning, choose_schedule
from pyrobust.ops import PrimalDualState, StepOptions

# penalty(r) -> (N,), and prox(r, weight) -> like r with weight (N,): argmin_u weight · penalty(u) + ½ ‖u − r‖₂².
Penalty = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
Weighted = Sequence[tuple[float, Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]]

# The gradient is divided by the norm dual to the one that is minimised.
_SCHEDULES = {
    "linf": Schedule(
        step_size=(0.3, 0.0003),
        ratio=0.1,
        normalize=1.0,
        closing=Closing("linf", (2.0, 0.003)),
        refine_share=0,
        damping=0.2,
    ),
    "l2": Schedule(step_size=(0.3, 0.0003), ratio=0.01, normalize=2.0, closing=CLOSING_L2, shortest=20, refine_share=0),
    "l1": Schedule(
        step_size=(1.0, 0.003),
        ratio=0.01,
        normalize=math.inf,
        closing=Closing("l1", (0.7, 0.003)),
        first=0.5,
        lead=CLOSING_L2,
        refine_share=0,
        damping=0.2,
    ),
    "l0": Schedule(step_size=(1.0, 0.1), ratio=0.1, normalize=math.inf, refine_step_size=(1.0, 0.1), refine_share=0),
    "penalty": Schedule(step_size=(0.3, 0.0003), ratio=0.01, normalize=2.0),
}


@judged_in_float32
def pdpgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm | None = None,
    penalty: Penalty | Weighted | None = None,
    grouping: str | None = None,
    steps: int = 500,
    step_size: float | None = None,
    restarts: int = 1,
    preset: str | None = None,
    tuning: Tuning | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    starts: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min ‖r‖ such that inputs + r is misclassified and inside ``bounds``, as a game of two players.

    r takes proximal gradient steps on λ₁ ‖r‖ + λ₂ hinge(margin): r ← prox(box(r − m̂ / w)), exactly in the metric w of
    Adam's step (:func:`pyrobust.ops.pdpgd_step_`); log(λ₂ / λ₁) rises while the point is not adversarial and falls once
    it is. In linf, l2 and l1 most of the steps are steepest ascent within a ball that is always a little smaller than the
    nearest point found: from the best point of a short run of the game, and from images mixed with noise; then from the
    nearest few of these, and at last from the nearest of all.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "linf", "l2", "l1" or "l0" (or inf, 2, 1, 0); default "linf". Not together with ``penalty``.
        penalty: (penalty, prox) of any other function to minimise: penalty(r) gives (N,), prox(r, weight) the minimiser
            of weight · penalty(u) + ½ ‖u − r‖₂², weight (N,). Or a sequence of (share, penalty, prox), a weighted sum
            whose proxes are applied in turn. In the units of the inputs.
        grouping: for l0: "pixel" (default for (N, C, H, W): the C values at a place count once) or "value" (default
            otherwise).
        steps: in all, over the runs from all starts (few steps: from the input alone); with ``restarts``, for each.
        step_size: the first one, in units of the width of ``bounds`` (with ``starts`` in linf, l2 and l1: of the distance of the
            nearest point so far); it falls exponentially, and those of all other runs change in proportion. Default by norm.
        restarts: each has its own noise; from the second on runs start within a quarter of the width of ``bounds``
            around the input rather than at it, at random.
        preset: "thesis": algorithm 3 with the parameters of §5.4: one run, Adam with its usual moments on the plain
            hinge, step size falling linearly to a hundredth, λ₁ / λ₂ starting at 0.01, its moving average, dual
            learning rate 0.1.
        tuning: for preset "thesis" without step_size: (inputs, labels) held back from the evaluation, on which the step
            size is chosen from 0.01, 0.05, 0.1, 0.5 and 1.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        starts: like ``inputs``, inside ``bounds``: points to refine, another attack's results for one. All steps then go
            on from there; each restart refines the best point again.
        callback: called as callback(step, PrimalDualState) after each step; ``state.best`` and ``state.best_distance``
            are the results so far. The attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · steps + 2 forward and at most restarts · steps backward passes.
    Source: seed 003, §5.3, algorithm 3 and eq. 5.7–5.16 (corrected); Matyasko and Chau 2021.
    """
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    starts = check_starts(starts, inputs, bounds)
    if penalty is not None:
        if norm is not None or grouping is not None or preset is not None:
            raise ValueError("penalty: not together with norm, grouping or preset")
        name = "penalty"
    else:
        name = norm_name("linf" if norm is None else norm)
    grouping = check_grouping(grouping, name, inputs)
    tuned = {"norm": name, "grouping": grouping, "steps": steps, "targeted": targeted, "bounds": bounds}
    schedule = choose_schedule(pdpgd, model, _SCHEDULES[name], step_size, preset, tuning, starts is not None, **tuned)

    step: Step
    if penalty is None:
        distance = _norm_of(name, grouping)

        def step(state: PrimalDualState, grad: Tensor, margin: Tensor, options: StepOptions) -> None:
            ops.pdpgd_step_(state, inputs, grad, margin, name, options)
    else:
        terms = _terms(penalty)
        distance = _sum_of(terms)

        def step(state: PrimalDualState, grad: Tensor, margin: Tensor, options: StepOptions) -> None:
            _penalty_step(state, inputs, grad, margin, options, terms)

    return primal_dual(
        model, inputs, labels, step, distance, schedule, steps=steps, restarts=restarts, targeted=targeted, bounds=bounds,
        grouping=grouping, seed=seed, sample_ids=sample_ids, starts=starts,
        callback=callback, eval_mode=eval_mode,
    )  # fmt: skip


def _norm_of(name: str, grouping: str) -> Callable[[Tensor], Tensor]:
    return lambda r: ops.lp_norm(r, name, grouping)


def _sum_of(terms: Weighted) -> Callable[[Tensor], Tensor]:
    def total(r: Tensor) -> Tensor:
        values = [value(r) for _, value, _ in terms]
        for value in values:
            if not isinstance(value, Tensor) or value.shape != r.shape[:1]:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"penalty: expected one value a sample, shape ({len(r)},), got {got}")
        return torch.stack([share * value for (share, _, _), value in zip(terms, values, strict=True)]).sum(0)

    return total


def _terms(penalty: Penalty | Weighted) -> Weighted:
    pair = tuple(penalty)
    if len(pair) == 2 and all(callable(part) for part in pair):
        return [(1.0, pair[0], pair[1])]  # type: ignore[list-item]
    for term in pair:
        if not (isinstance(term, (tuple, list)) and len(term) == 3 and callable(term[1]) and callable(term[2])):
            raise ValueError("penalty: expected (penalty, prox), or a sequence of (share, penalty, prox)")
        if not term[0] > 0:
            raise ValueError(f"penalty: expected shares > 0, got {term[0]!r}")
    return pair  # type: ignore[return-value]


def _penalty_step(
    state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, options: StepOptions, terms: Weighted
) -> None:
    """pdpgd_step_ for a function of which only the prox in the plain metric is known: plain steps with momentum, w = 1
    / step_size."""
    low, high = options.bounds
    width = high - low
    keep_best(state, margin)
    wide = state.exp_avg.dtype
    grad = grad.to(wide) / rows_like(ops.lp_norm(grad, options.normalize), grad).clamp(min=torch.finfo(wide).tiny)
    state.exp_avg.lerp_(grad, 1 - options.betas[0])
    step = options.step_size * width
    r = (state.adv - step * state.exp_avg / options.corrections[0]).clamp(low, high) - inputs
    rho = state.dual_average / (1 - state.dual_average)
    for share, _, prox in terms:
        r = prox(r, share * step * rho)
    state.adv.copy_((inputs + r).clamp(low, high))
    state.distance.copy_(_sum_of(terms)(state.adv - inputs))
    state.dual.add_(options.dual_step * margin.sign()).clamp_(-options.dual_limit, options.dual_limit)
    state.dual_average.lerp_(torch.sigmoid(-state.dual), 1 - options.dual_momentum)

"""The loop of the primal-dual attacks PDGD and PDPGD.

How it differs from seed 003's algorithms 2 and 3, each by measurement (see the strength benchmark):

- The minimum that is found depends more on the class that the attack runs into than on how long it runs. So a share of
the steps is spent on short
  runs towards each of the most likely classes; the last, longest run aims at the class of the best point so far.
- Each row's gradient is divided by its dual norm, so that λ₁ / λ₂ near 1 balances norm and loss whatever the scale of
the logits.
- The surrogate is a hinge that stops pushing once the point is adversarial; the norm alone acts there.
- The prox is taken exactly in the metric of Adam's step, not by sub-iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import Callback, Model, clean_logits, logits_and_grad, rows_like, undisturbed
from pyrobust.ops import PrimalDualState, StepOptions

# A step function: (state, gradient, margin, options) -> None, in place.
Step = Callable[[PrimalDualState, Tensor, Tensor, StepOptions], object]


@dataclass(frozen=True)
class Schedule:
    """Step sizes and dual updates of a primal-dual attack.

    Attributes:
        step_size: first and last of each run, in units of the width of ``bounds``.
        ratio: λ₁ / λ₂ at the start of each run.
        refine_step_size, refine_ratio: the same of a run that starts from given points.
        linear: the step size falls linearly rather than exponentially.
        explore: runs towards the most likely classes, before the last run.
        share: of the steps, spent on each of those.
        betas: of Adam.
        normalize: exponent of the norm that divides each row's gradient; 0: none.
        dual_steps: first and last step of log(λ₂ / λ₁), falling linearly; divided by the steps of the run where
            ``dual_per_run``.
        dual_per_run: see ``dual_steps``.
        dual_limit: the largest and, inverted, the smallest λ₂ / λ₁.
        dual_momentum: of the moving average of λ₁.
    """

    step_size: tuple[float, float]
    ratio: float
    linear: bool = False
    refine_step_size: tuple[float, float] = (0.1, 0.0003)
    refine_ratio: float = 0.01
    explore: int = 5
    share: float = 0.12
    betas: tuple[float, float] = (0.5, 0.999)
    normalize: float = 0.0
    dual_steps: tuple[float, float] = (10.0, 1.0)
    dual_per_run: bool = True
    dual_limit: float = 1e6
    dual_momentum: float = 0.0


def thesis_schedule(step_size: float) -> Schedule:
    """Seed 003, §5.4: learning rate falling linearly to a hundredth, dual learning rate 0.1, moving average of the dual
    variables, λ₁ / λ₂ = 0.01."""
    return Schedule(
        step_size=(step_size, step_size / 100), ratio=0.01, linear=True, explore=0, betas=(0.9, 0.999), dual_steps=(0.1, 0.1),
        dual_per_run=False, dual_momentum=0.9,
    )  # fmt: skip


THESIS_STEP_SIZES = (0.01, 0.05, 0.1, 0.5, 1.0)
_SHORTEST_RUN = 40
_SHORTEST_LAST_RUN = 120


class Run(NamedTuple):
    """One run of an attack: how many steps, and the rank of the class it aims at.

    Rank None is the class of the best point; without exploration, the runner-up of each point.
    """

    steps: int
    rank: int | None


def plan(steps: int, schedule: Schedule, classes: int) -> list[Run]:
    """Share the steps out to runs, as far as they go: runs that are too short to settle cost more than another class
    gains."""
    length = max(_SHORTEST_RUN, int(schedule.share * steps))
    last = max(_SHORTEST_LAST_RUN, steps - schedule.explore * length)
    explore = min(schedule.explore, classes - 1, (steps - last) // length)
    if explore < 2:  # the first class is the one that a single run would find
        return [Run(steps, None)]
    return [Run(length, rank) for rank in range(explore)] + [Run(steps - explore * length, None)]


def _options(schedule: Schedule, run: Run, step: int, bounds: Bounds, grouping: str) -> StepOptions:
    """The constants of step 0, 1, … of a run."""
    part = step / run.steps
    first, last = schedule.step_size
    size = first + (last - first) * part if schedule.linear else first * (last / first) ** part
    dual = schedule.dual_steps[0] + (schedule.dual_steps[1] - schedule.dual_steps[0]) * part
    beta1, beta2 = schedule.betas
    return StepOptions(
        step_size=size,
        dual_step=dual / run.steps if schedule.dual_per_run else dual,
        corrections=(1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)),
        betas=schedule.betas,
        normalize=schedule.normalize,
        dual_limit=math.log(schedule.dual_limit),
        dual_momentum=schedule.dual_momentum,
        bounds=bounds,
        grouping=grouping,
    )


def primal_dual(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    step: Step,
    distance: Callable[[Tensor], Tensor],
    schedule: Schedule,
    *,
    steps: int,
    restarts: int,
    targeted: bool,
    bounds: Bounds,
    grouping: str,
    seed: int,
    sample_ids: Tensor,
    starts: Tensor | None,
    callback: Callback | None,
    eval_mode: bool,
) -> Tensor:
    """Run the attack; every argument is checked already. Per step: one forward, one backward, one seed, one fused step.

    A run begins with the forward pass that judges the last point of the run before; it has no backward pass. From given
    ``starts`` there is nothing to explore: the runs aim at the class that the start, or the best point since, is in.
    """
    with undisturbed(model, eval_mode):
        ranked = clean_logits(model, inputs, labels)
        classes = ranked.shape[1]
        if not targeted:
            ranked = ranked.scatter(1, labels.unsqueeze(1), -math.inf)
        ranked = ranked.argsort(dim=1, descending=True, stable=True).T.contiguous()
        state = PrimalDualState.start(inputs, schedule.ratio)
        best_class = ranked[0].clone()
        wide = state.distance.dtype
        margin = state.distance
        runs = plan(steps, schedule, 2 if targeted else classes) * restarts
        if starts is not None:
            runs = [Run(steps, None)] * restarts
            state.restart(starts, schedule.ratio, distance(starts - inputs))
        for number, run in enumerate(runs):
            targets = None if targeted or run.rank is None else ranked[run.rank]
            follow = not targeted and run.rank is None and schedule.explore > 0

            def seed_at(logits: Tensor, targets: Tensor | None = targets, follow: bool = follow) -> Tensor:
                nonlocal margin
                at, margin = ops.attack_seed(logits.to(wide), labels, best_class, state, targets, targeted, follow)
                return at

            for k in range(run.steps):
                if k == 0 and number > 0:
                    with torch.no_grad():
                        seed_at(model(state.adv))
                    keep_best(state, margin)
                    restart = number * restarts // len(runs)
                    _restart(state, inputs, schedule.ratio, restart, bounds, distance, seed, sample_ids)
                else:
                    _, grad = logits_and_grad(model, state.adv, seed_at)
                    step(state, grad, margin, _options(schedule, run, k, bounds, grouping))
                if callback is not None and callback(k, state):
                    return state.best
    return state.best


def keep_best(state: PrimalDualState, margin: Tensor) -> None:
    """Replace the best point where the one just judged is adversarial and nearer, as the fused steps do."""
    better = (margin < 0) & (state.distance < state.best_distance)
    state.best.copy_(torch.where(rows_like(better, state.adv), state.adv, state.best))
    state.best_distance.copy_(torch.where(better, state.distance, state.best_distance))


def _restart(
    state: PrimalDualState,
    inputs: Tensor,
    ratio: float,
    restart: int,
    bounds: Bounds,
    distance: Callable[[Tensor], Tensor],
    seed: int,
    sample_ids: Tensor,
) -> None:
    """Back to the inputs, or, from the second restart on, to a point uniform in the box of half the width around
    them."""
    if restart == 0:
        return state.restart(inputs, ratio)
    low, high = bounds
    noise = ops.sample_lp_ball(inputs, math.inf, 0.25 * (high - low), seed=seed, sample_ids=sample_ids, step=restart)
    adv = (inputs + noise).clamp_(low, high)
    state.restart(adv, ratio, distance(adv - inputs))

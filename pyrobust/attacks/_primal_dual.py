"""The loop of the primal-dual attacks PDGD and PDPGD.

How it differs from seed 003's algorithms 2 and 3, each by measurement (see the strength benchmark):

- The steps are shared out to runs (``_runs.py``).
- Each row's gradient is divided by its dual norm, so that λ₁ / λ₂ near 1 balances norm and loss whatever the scale of
the logits.
- The surrogate is a hinge that stops pushing once the point is adversarial; the norm alone acts there.
- The prox is taken exactly in the metric of Adam's step, not by sub-iterations. But as five of those move an element by
at most 5 ρ / max w, so does the prox of linf and l1 here, where w is damped to a fifth of its maximum: without that,
elements of small gradient fall to zero at once, and runs end further away (in l2 it is the other way round).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._closing import close_in
from pyrobust.attacks._common import Callback, Model, clean_logits, logits_and_grad, undisturbed
from pyrobust.attacks._runs import Run, Schedule, plan, refinement
from pyrobust.attacks._search import keep_best
from pyrobust.attacks._starts import ManyStarts, Problem, Starts, TwoOrigins
from pyrobust.ops import PrimalDualState, StepOptions

# A step function: (state, gradient, margin, options) -> None, in place.
Step = Callable[[PrimalDualState, Tensor, Tensor, StepOptions], object]


def _options(schedule: Schedule, run: Run, step: int, bounds: Bounds, grouping: str) -> StepOptions:
    """The constants of step 0, 1, … of a run."""
    part = step / run.steps
    first, last = schedule.refine_step_size if run.start in ("best", "own") else schedule.step_size
    size = first + (last - first) * part if schedule.linear else first * (last / first) ** part
    size *= schedule.settle ** max(0.0, 5 * part - 4)
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
        damping=schedule.damping,
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

    A run begins with the forward pass that judges the last point of the run before; it has no backward pass, and nor has the
    one after the last run. From given ``starts`` there is nothing to explore: the runs aim at the class that the start, or the
    best point since, is in.
    """
    with undisturbed(model, eval_mode):
        ranked = clean_logits(model, inputs, labels)
        if not targeted:
            ranked = ranked.scatter(1, labels.unsqueeze(1), -math.inf)
        ranked = ranked.argsort(dim=1, descending=True, stable=True).T.contiguous()
        state = PrimalDualState.start(inputs, schedule.ratio)
        best_class = ranked[0].clone()
        wide = state.distance.dtype
        margin = state.distance
        at = Problem(state, inputs, bounds, distance, schedule, ranked, best_class, seed, sample_ids)
        runs = plan(steps, schedule, 1 if targeted else len(ranked) - 1)
        if starts is not None:
            runs = refinement(steps, schedule)
            state.restart(starts, schedule.refine_ratio, distance(starts - inputs))
        runs = runs * restarts
        keeper: Starts = TwoOrigins(at)
        if schedule.closing is not None:
            keeper = ManyStarts(at, sum(run.start == "place" for run in runs) // restarts)

        def watch(k: int, state: PrimalDualState) -> bool | None:
            return callback is not None and callback(k, keeper.seen())

        def judge() -> None:
            """Keep the last point where it is the nearest."""
            nonlocal margin
            with torch.no_grad():
                logits = model(state.adv)
            _, margin = ops.attack_seed(logits.to(wide), labels, best_class, state, None, targeted)
            keep_best(state, margin)

        def descend(run: Run, first: int) -> bool:
            """Its steps; True where the callback asked to stop."""
            targets = None if targeted else keeper.targets(run)
            follow = not targeted and run.rank is None and schedule.explore > 0

            def seed_at(logits: Tensor) -> Tensor:
                nonlocal margin
                at, margin = ops.attack_seed(logits.to(wide), labels, best_class, state, targets, targeted, follow)
                return at

            for k in range(run.steps):
                if k >= first:
                    _, grad = logits_and_grad(model, state.adv, seed_at)
                    step(state, grad, margin, _options(schedule, run, k, bounds, grouping))
                if watch(k, state):
                    return True
            return False

        for number, run in enumerate(runs):
            if number > 0:  # the first of the run's steps judges the last point of the run before
                judge()
                keeper.begin(run, number * restarts // len(runs))
            if run.closing is not None:
                stopped = close_in(
                    model, inputs, labels, state, run.closing.norm, steps=run.steps, first=int(number > 0),
                    step_size=run.closing.step_size, targeted=targeted, bounds=bounds, callback=watch,
                )  # fmt: skip
            else:
                stopped = descend(run, int(number > 0))
            if stopped:
                break
        else:
            judge()
        return keeper.seen().best

"""The loop of the primal-dual attacks PDGD and PDPGD.

How it differs from seed 003's algorithms 2 and 3, each by measurement (see the strength benchmark):

- The minimum that is found depends more on the class that the attack runs into, and on where it starts, than on how
long it runs. So a share of the steps is spent on short runs: from the input towards the most likely classes, and from
noise, which finds points several times nearer where training has flattened the gradient at the input (linf-trained
MNIST networks). The rest goes to one run in the direction that won, and one that refines the best point of all: by the
same steps from there, or, in PDPGD of linf, l2 and l1, within a ball that closes in (``_closing.py``), which ends nearer.
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
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._closing import close_in
from pyrobust.attacks._common import Callback, Model, clean_logits, logits_and_grad, rows_like, undisturbed
from pyrobust.attacks._search import keep_best
from pyrobust.ops import PrimalDualState, StepOptions

# A step function: (state, gradient, margin, options) -> None, in place.
Step = Callable[[PrimalDualState, Tensor, Tensor, StepOptions], object]


@dataclass(frozen=True)
class Schedule:
    """Step sizes and dual updates of a primal-dual attack.

    Attributes:
        step_size: first and last of each run, in units of the width of ``bounds``.
        ratio: λ₁ / λ₂ at the start of each run.
        refine_step_size, refine_ratio: the same of a run that refines given points, or the best one.
        linear: the step size falls linearly rather than exponentially.
        explore: short runs before the two last ones; 0: one run is all.
        share: of the steps, spent on each of those.
        refine_share: of the steps left, where they are many, spent on refining the best point.
        betas: of Adam.
        normalize: exponent of the norm that divides each row's gradient; 0: none.
        dual_steps: first and last step of log(λ₂ / λ₁), falling linearly; divided by the steps of the run where
            ``dual_per_run``.
        dual_per_run: see ``dual_steps``.
        dual_limit: the largest and, inverted, the smallest λ₂ / λ₁.
        dual_momentum: of the moving average of λ₁.
        damping: see :class:`pyrobust.ops.StepOptions`.
        settle: over the last fifth of each run the step size falls by this factor more.
        closing: a run that refines ascends within a ball that closes in (``_closing.py``) instead; its step sizes are in
            units of the radius.
    """

    step_size: tuple[float, float]
    ratio: float
    linear: bool = False
    refine_step_size: tuple[float, float] = (0.1, 0.0003)
    refine_ratio: float = 0.01
    explore: int = 6
    share: float = 0.1
    refine_share: float = 0.5
    betas: tuple[float, float] = (0.5, 0.999)
    normalize: float = 0.0
    dual_steps: tuple[float, float] = (10.0, 1.0)
    dual_per_run: bool = True
    dual_limit: float = 1e6
    dual_momentum: float = 0.0
    damping: float = 0.0
    settle: float = 1.0
    closing: bool = False


def thesis_schedule(step_size: float) -> Schedule:
    """Seed 003, §5.4: learning rate falling linearly to a hundredth, dual learning rate 0.1, moving average of the dual
    variables, λ₁ / λ₂ = 0.01."""
    return Schedule(
        step_size=(step_size, step_size / 100), ratio=0.01, refine_step_size=(step_size, step_size / 100), linear=True,
        explore=0, betas=(0.9, 0.999), dual_steps=(0.1, 0.1), dual_per_run=False, dual_momentum=0.9,
    )  # fmt: skip


THESIS_STEP_SIZES = (0.01, 0.05, 0.1, 0.5, 1.0)
_SHORTEST_RUN = 40
_SHORTEST_LAST_RUN = 120
_SHORTEST_CLOSING = 80
_FIRST = 0.3  # of the steps, where there are too few to explore and the rest closes in
_NOISE = 0.5  # radius of the linf ball that noise is uniform in, in units of the width of the bounds
_NEARBY = 0.25  # the same, in place of the input itself, from the second restart on
_PREFERS_NOISE = 0.9  # a sample does where noise led to a point this much nearer than the input did

Origin = Literal["input", "noise", "either", "again", "best"]


class Run(NamedTuple):
    """One run of an attack.

    Attributes:
        steps: how many.
        rank: of the class it aims at, by the logits of the input; None: the class of the best point so far.
        start: "input"; "noise"; "either" of them, by which served the sample better; "again" the better start so far;
            "best", the best point so far, to be refined.
    """

    steps: int
    rank: int | None = None
    start: Origin = "input"


def plan(steps: int, schedule: Schedule, classes: int) -> list[Run]:
    """Share the steps out to runs, as far as they go: runs that are too short to settle cost more than another start
    gains. A run that closes in needs no more than a point to start from, and so fewer steps than one that refines by the
    prox.

    Args:
        classes: that the attack may run into.
    """
    length = max(_SHORTEST_RUN, int(schedule.share * steps))
    last = max(int(0.4 * steps) if schedule.closing else _SHORTEST_LAST_RUN, steps - schedule.explore * length)
    # One run from noise; each of the others needs a class of its own.
    explore = min(schedule.explore, classes + 1, (steps - last) // length)
    if explore < 2:
        first = max(1, int(_FIRST * steps)) if schedule.closing else steps
        return [Run(first, 0), Run(steps - first, None, "best")] if steps > first else [Run(steps)]
    short = [
        Run(length, 0),
        Run(length, None, "noise"),
        *(Run(length, rank, "either") for rank in range(1, explore - 1)),
    ]
    left = steps - explore * length
    if left < 2 * (_SHORTEST_CLOSING if schedule.closing else _SHORTEST_LAST_RUN):
        return [*short, Run(left, None, "best" if schedule.closing else "again")]
    refine = int(schedule.refine_share * left)
    again = Run(left - refine, None, "again")
    return [*short, again, Run(refine, None, "best")] if refine else [*short, again]


def _options(schedule: Schedule, run: Run, step: int, bounds: Bounds, grouping: str) -> StepOptions:
    """The constants of step 0, 1, … of a run."""
    part = step / run.steps
    first, last = schedule.refine_step_size if run.start == "best" else schedule.step_size
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
    norm: str,
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
        if not targeted:
            ranked = ranked.scatter(1, labels.unsqueeze(1), -math.inf)
        ranked = ranked.argsort(dim=1, descending=True, stable=True).T.contiguous()
        state = PrimalDualState.start(inputs, schedule.ratio)
        best_class = ranked[0].clone()
        wide = state.distance.dtype
        margin = state.distance
        origins = _Origins(state, inputs, bounds, distance, seed, sample_ids)
        runs = plan(steps, schedule, 1 if targeted else len(ranked) - 1) * restarts
        if starts is not None:
            runs = [Run(steps, None, "best")] * restarts
            state.restart(starts, schedule.refine_ratio, distance(starts - inputs))
        for number, run in enumerate(runs):
            if number > 0:  # the first of the run's steps judges the last point of the run before
                with torch.no_grad():
                    logits = model(state.adv)
                _, margin = ops.attack_seed(logits.to(wide), labels, best_class, state, None, targeted)
                keep_best(state, margin)
                origins.begin(run, number, number * restarts // len(runs), schedule)
            if run.start == "best" and schedule.closing:
                if close_in(
                    model, inputs, labels, state, norm, steps=run.steps, first=int(number > 0),
                    step_size=schedule.refine_step_size, targeted=targeted, bounds=bounds, callback=callback,
                ):  # fmt: skip
                    return state.best
                continue
            targets: Tensor | None = None
            if run.rank is not None and not targeted:
                towards = ranked[run.rank]
                targets = torch.where(origins.prefer_noise(), best_class, towards) if run.start == "either" else towards
            follow = not targeted and run.rank is None and schedule.explore > 0

            def seed_at(logits: Tensor, targets: Tensor | None = targets, follow: bool = follow) -> Tensor:
                nonlocal margin
                at, margin = ops.attack_seed(logits.to(wide), labels, best_class, state, targets, targeted, follow)
                return at

            for k in range(run.steps):
                if number == 0 or k > 0:
                    _, grad = logits_and_grad(model, state.adv, seed_at)
                    step(state, grad, margin, _options(schedule, run, k, bounds, grouping))
                if callback is not None and callback(k, state):
                    return state.best
    return state.best


class _Origins:
    """Where the runs of each sample start, and whether the input or noise has served it better."""

    def __init__(
        self,
        state: PrimalDualState,
        inputs: Tensor,
        bounds: Bounds,
        distance: Callable[[Tensor], Tensor],
        seed: int,
        sample_ids: Tensor,
    ) -> None:
        self._state, self._inputs, self._bounds, self._distance = state, inputs, bounds, distance
        self._keys: dict[str, Any] = {"seed": seed, "sample_ids": sample_ids}
        self._from_input = torch.full_like(state.best_distance, math.inf)  # the nearest point so far of either origin,
        self._from_noise = self._from_input.clone()  # if it was the nearest of all when it was found
        self._favourite = inputs  # the noise that led to the nearest point
        self._start, self._noisy = inputs, torch.zeros_like(sample_ids, dtype=torch.bool)
        self._before = state.best_distance.clone()

    def prefer_noise(self) -> Tensor:
        """(N,) bool."""
        return self._from_noise < _PREFERS_NOISE * self._from_input

    def begin(self, run: Run, number: int, restart: int, schedule: Schedule) -> None:
        """Judge the run that has ended, and put every sample where the next one starts.

        Args:
            number: of the run, to draw noise by.
            restart: 0 at first; later ones start near the input rather than at it.
        """
        state, inputs = self._state, self._inputs
        better = state.best_distance < self._before
        for found, here in ((self._from_input, ~self._noisy), (self._from_noise, self._noisy)):
            found.copy_(torch.where(better & here, state.best_distance, found))
        self._favourite = torch.where(rows_like(better & self._noisy, inputs), self._start, self._favourite)
        self._before = state.best_distance.clone()

        prefer = self.prefer_noise()
        self._noisy = {"noise": torch.ones_like(prefer), "input": torch.zeros_like(prefer)}.get(run.start, prefer)
        if run.start == "best":
            self._start = state.best.clone()
        else:
            near = inputs if restart == 0 else self._noise(_NEARBY, number)
            noise = self._favourite if run.start == "again" else self._noise(_NOISE, number)
            self._start = torch.where(rows_like(self._noisy, inputs), noise, near)
        ratio = schedule.refine_ratio if run.start == "best" else schedule.ratio
        state.restart(self._start, ratio, self._distance(self._start - inputs))

    def _noise(self, radius: float, number: int) -> Tensor:
        low, high = self._bounds
        noise = ops.sample_lp_ball(self._inputs, math.inf, radius * (high - low), step=number, **self._keys)
        return noise.add_(self._inputs).clamp_(low, high)

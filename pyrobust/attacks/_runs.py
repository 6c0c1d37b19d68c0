"""How the primal-dual attacks share their steps out to runs.

What is found depends more on the basin that a run starts in, and on the class that it runs into, than on how long it runs.
So most of the steps go to short runs from different starts. Attacks that can close in on the boundary (``_closing.py``, linf,
l2 and l1) come near it within some 30 steps: they do so from images mixed with noise, which finds points several times nearer
where training has flattened the gradient at the input (linf-trained MNIST networks), then go on from the nearest few places,
and at last from the nearest of all. From noise l1 is led by l2: of eleven such starts the nearest is then 7 % nearer on those
networks, and 1 % on l2-trained ones. The others find out by short runs which class to aim at, and whether to start from the
input or from noise, and spend the rest on one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Closing(NamedTuple):
    """How a run closes in: the ball's norm; the first and the last step size, in units of its radius."""

    norm: str
    step_size: tuple[float, float]


@dataclass(frozen=True)
class Schedule:
    """Step sizes and dual updates of a primal-dual attack.

    Attributes:
        step_size: first and last of each run, in units of the width of ``bounds``.
        ratio: λ₁ / λ₂ at the start of each run.
        refine_step_size, refine_ratio: the same of a run that refines given points, or the best one.
        closing: where runs close in (``_closing.py``).
        first: share of the steps of a run from the input before it closes in.
        lead: the first third of a run that closes in from noise does so in another norm.
        shortest: steps of a run that closes in from a start of its own, at least.
        linear: the step size falls linearly rather than exponentially.
        explore: where none closes in: short runs before the two last ones; 0: one run is all.
        share: of the steps, spent on each of those.
        refine_share: of the steps left, where they are many, spent on refining the best point; where runs close in: of the
            steps of the last one, after it has.
        betas: of Adam.
        normalize: exponent of the norm that divides each row's gradient; 0: none.
        dual_steps: first and last step of log(λ₂ / λ₁), falling linearly; divided by the steps of the run where
            ``dual_per_run``.
        dual_per_run: see ``dual_steps``.
        dual_limit: the largest and, inverted, the smallest λ₂ / λ₁.
        dual_momentum: of the moving average of λ₁.
        damping: see :class:`pyrobust.ops.StepOptions`.
        settle: over the last fifth of each run the step size falls by this factor more.
    """

    step_size: tuple[float, float]
    ratio: float
    linear: bool = False
    refine_step_size: tuple[float, float] = (0.1, 0.0003)
    refine_ratio: float = 0.01
    closing: Closing | None = None
    first: float = 0.3
    lead: Closing | None = None
    shortest: int = 30
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


def thesis_schedule(step_size: float) -> Schedule:
    """Seed 003, §5.4: learning rate falling linearly to a hundredth, dual learning rate 0.1, moving average of the dual
    variables, λ₁ / λ₂ = 0.01."""
    return Schedule(
        step_size=(step_size, step_size / 100), ratio=0.01, refine_step_size=(step_size, step_size / 100), linear=True,
        explore=0, betas=(0.9, 0.999), dual_steps=(0.1, 0.1), dual_per_run=False, dual_momentum=0.9,
    )  # fmt: skip


CLOSING_L2 = Closing("l2", (1.0, 0.003))  # in both attacks, and where it leads
THESIS_STEP_SIZES = (0.01, 0.05, 0.1, 0.5, 1.0)
_SHORTEST_RUN = 40
_SHORTEST_LAST_RUN = 120
_UNIT = 0.025  # of the steps: one run from a start of its own
MIXES = (0.5, 0.75)  # shares of noise in the images that are started from
LEAD = 3  # a run from noise spends one in so many steps in another norm, where it leads
_SECOND_CLASS, _THREE_PLACES, _TWO_PLACES = 750, 750, 400  # steps from which on they are worth it
# Of the steps, at least, on closing in on the nearest place of all; by the places that were gone on from before.
_LAST = {3: 0.15, 2: 0.15, 0: 0.3}

Origin = Literal["input", "noise", "either", "again", "mixed", "own", "place", "best"]


class Run(NamedTuple):
    """One run of an attack.

    Attributes:
        steps: how many.
        rank: of the class it aims at, by the logits of the input; None: the class of the best point so far.
        start: where none closes in: "input"; "noise"; "either" of them, by which served the sample better; "again" the better
            start so far; "best", the best point so far, to be refined. Otherwise "input" and "mixed" with noise open a start of
            its own; "own" goes on from the best point of that; "place" from the one at a place among the nearest, and "best"
            from the nearest of all.
        closing: it closes in, and how.
        mix: of "mixed", the share of noise.
        place: of "place", from 0 on.
    """

    steps: int
    rank: int | None = None
    start: Origin = "input"
    closing: Closing | None = None
    mix: float = 0.0
    place: int = 0


def plan(steps: int, schedule: Schedule, classes: int) -> list[Run]:
    """Share the steps out to runs, as far as they go: runs that are too short to settle cost more than another start
    gains.

    Args:
        classes: that the attack may run into.
    """
    if schedule.closing is not None:
        return _many_starts(steps, schedule, classes)
    length = max(_SHORTEST_RUN, int(schedule.share * steps))
    last = max(_SHORTEST_LAST_RUN, steps - schedule.explore * length)
    # One run from noise; each of the others needs a class of its own.
    explore = min(schedule.explore, classes + 1, (steps - last) // length)
    if explore < 2:
        return [Run(steps)]
    short = [
        Run(length, 0),
        Run(length, None, "noise"),
        *(Run(length, rank, "either") for rank in range(1, explore - 1)),
    ]
    left = steps - explore * length
    refine = int(schedule.refine_share * left) if left >= 2 * _SHORTEST_LAST_RUN else 0
    again = Run(left - refine, None, "again")
    return [*short, again, Run(refine, None, "best")] if refine else [*short, again]


def refinement(steps: int, schedule: Schedule) -> list[Run]:
    """The runs from the best point, or from given ones."""
    if schedule.closing is None:
        return [Run(steps, None, "best")]
    descend = int(schedule.refine_share * steps) if steps >= 2 * _SHORTEST_RUN else 0
    runs = [Run(steps - descend, None, "best", schedule.closing)]
    return [*runs, Run(descend, None, "own")] if descend else runs


def _many_starts(steps: int, schedule: Schedule, classes: int) -> list[Run]:
    unit = max(schedule.shortest, int(_UNIT * steps))
    places = 3 if steps >= _THREE_PLACES else 2 if steps >= _TWO_PLACES else 0
    further = int(1.5 * unit) + 1
    classes = min(classes, 2 if steps >= _SECOND_CLASS else 1)
    own = (4 if places else 2) * unit
    left = steps - own - 2 * unit * (classes - 1) - further * places - int(_LAST[places] * steps)
    from_noise = _from_noise(unit, schedule, 0.0)
    noise = left // sum(run.steps for run in from_noise)
    if noise < 1:
        return _from_input(steps, 0, schedule)
    runs = [run for rank in range(classes) for run in _from_input(2 * unit if rank else own, rank, schedule)]
    runs += [run for i in range(noise) for run in _from_noise(unit, schedule, MIXES[i % len(MIXES)])]
    runs += [Run(further, None, "place", schedule.closing, place=place) for place in range(places)]
    return runs + refinement(steps - sum(run.steps for run in runs), schedule)


def _from_input(steps: int, rank: int, schedule: Schedule) -> list[Run]:
    first = max(1, int(schedule.first * steps))
    rest = [Run(steps - first, None, "own", schedule.closing)] if steps > first else []
    return [Run(first, rank), *rest]


def _from_noise(steps: int, schedule: Schedule, mix: float) -> list[Run]:
    """With a forward pass each, that judges the run before."""
    if schedule.lead is None:
        return [Run(steps + 1, None, "mixed", schedule.closing, mix)]
    lead = steps // LEAD
    return [Run(lead + 1, None, "mixed", schedule.lead, mix), Run(steps - lead + 1, None, "own", schedule.closing)]

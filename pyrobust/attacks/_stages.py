"""How :func:`pyrobust.attacks.minimum_norm` shares its budget out to attacks.

What a search finds depends most on the basin that it starts in. So where the budget allows, a stage is a start and a short
run that closes in on the boundary from there; the nearest few points are gone on from, and the nearest of all is refined at
last. In linf, l2 and l1 these are the starts of the primal-dual attacks themselves (``_runs.py``), one a stage, so that each
can tell where it led. In l0 they follow what attacks of that norm find: the sparsest points are often those that runs in l1
lead to.

The shares were chosen on images that no table reports.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pyrobust.attacks._runs import LEAD, MIXES


class Stage(NamedTuple):
    """A part of the budget.

    Attributes:
        name: as the result tells it: an attack; "towards" another class; "noise", started from; "pdpgd_l2", points that lead there
            from noise, started from; "again", one of the nearest points of the starts; "refine", the nearest point so far;
            "prune", one of the nearest points of the starts made sparser (``_pruning.py``).
        steps: of the attack; of the one that finds where to start.
        refine: steps of the run from a start.
        restarts: of the attack.
        draw: from 0 on: tells the noise of stages apart.
        rank: for "towards": of the class by its logit at the input, 1 the second of those that are not the label. For "again"
            and "prune": of the point, 0 the nearest.
        mix: share of noise in the points to start at; 0: the input.
        norm: in which the run from the start minimises, where it is not the one of the search: "l1" in l0, whose points are
            then made sparse.
    """

    name: str
    steps: int
    refine: int = 0
    restarts: int = 1
    draw: int = 0
    rank: int = 0
    mix: float = 0.0
    norm: str | None = None

    @property
    def cost(self) -> int:
        """Gradients a sample, at most."""
        return self.steps * self.restarts + self.refine

    @property
    def is_start(self) -> bool:
        """Whether it is one of its own, apart from the points so far."""
        return self.name not in ("again", "refine", "prune")

    @property
    def goes_on(self) -> bool:
        """Whether it goes on from a point of the starts."""
        return self.name in ("again", "prune")


# Up to these budgets, shares of the attacks that are good within few steps. "in l1": in that norm, and then made sparse; on
# images whose pixels are mostly black or white a few steps there do more than the rest of them in l0.
_Shares = tuple[tuple[str, float], ...]
_SHARES: dict[str, dict[float, _Shares]] = {
    "linf": {449: (("pdpgd", 1.0),)},
    "l2": {149: (("ddn", 0.5), ("noise", 0.5)), 449: (("pdgd", 1.0),)},
    "l1": {449: (("pdpgd", 1.0),)},
    "l0": {
        99: (("sigma_zero", 1.0),),
        199: (("sigma_zero", 0.5), ("pdpgd in l1", 0.3), ("prune", 0.2)),
        749: (("pdpgd", 0.45), ("pdpgd in l1", 0.3), ("prune", 0.125), ("prune", 0.125)),
    },
}
# In l0 these come before the starts: the second has that share, the first what the rest leaves. The starts are searched from in
# l1: where pixels are often black or white, the sparsest points come from there. The nearest points of all of them are pruned
# rather than gone on from: which pixels a point has limits how sparse it can become, and it is not always the sparsest one
# that becomes sparser than the others.
_FIRST, _SECOND = "pdpgd", ("sigma_zero", 0.25)


class _Starts(NamedTuple):
    """Starts of a norm: the share of the budget of one run from a start; how many of them from images mixed with noise; whether
    another class than the nearest is aimed at; how many of the nearest points of all these are gone on from, or pruned, and for
    how many units."""

    unit: float
    noise: int
    towards: bool = False
    places: int = 0
    further: float = 0.0


# By the largest budget that they are for.
_STARTS: dict[str, dict[float, _Starts]] = {
    "linf": {749: _Starts(0.06, 7, places=3, further=1.3), math.inf: _Starts(0.03, 16, True, 4, 1.5)},
    "l2": {749: _Starts(0.04, 14, places=3, further=1.6), math.inf: _Starts(0.025, 20, True, 4, 1.5)},
    "l1": {749: _Starts(0.06, 7, places=3, further=1.3), math.inf: _Starts(0.03, 16, True, 4, 1.5)},
    "l0": {math.inf: _Starts(0.03, 2, places=5, further=5 / 3)},
}
_MIX = 0.5  # of noise, in the longest run of a further round
_DRAWS = 100_000  # from there on draws of noise are numbered that are not those of the starts from noise
_RUN = 1000  # gradients; a larger budget buys as many starts again


def plan(norm: str, budget: int, classes: int, reserved: int = 0) -> list[Stage]:
    """The stages of a search; their gradients add up to ``budget`` − ``reserved`` at most.

    Args:
        classes: that the attack may run into: 1 where it is targeted.
        reserved: gradients that are spent elsewhere; which plan it is follows from the whole budget.
    """
    free = budget - reserved
    for most, shares in _SHARES[norm].items():
        if budget <= most:
            return _few(shares, free)
    rounds = max(1, budget // _RUN)
    starts = next(starts for most, starts in _STARTS[norm].items() if budget <= most)
    sparse = norm == "l0"
    unit = int(starts.unit * free / rounds)
    stages = [stage for number in range(rounds) for stage in _round(norm, number, starts, unit, classes)]
    if sparse:
        name, share = _SECOND
        stages = [Stage(name, int(share * free / rounds), restarts=rounds), *(s._replace(norm="l1") for s in stages)]
    then, places = "again", starts.places * rounds
    if sparse:
        then, places = "prune", min(places, 1 + len(stages))
    stages += [Stage(then, 0, int(starts.further * unit), rank=place) for place in range(places)]
    left = free - sum(stage.cost for stage in stages)
    if sparse:
        return [Stage(_FIRST, left // rounds, restarts=rounds), *stages]
    return [*stages, Stage("refine", 0, left)]


def _few(shares: _Shares, budget: int) -> list[Stage]:
    """The stages of a small budget; the last one has what rounding leaves, too."""
    steps = [int(share * budget) for _, share in shares]
    steps[-1] += budget - sum(steps)
    stages: list[Stage] = []
    for (name, _), count in zip(shares, steps, strict=True):
        attack, _, other = name.partition(" in ")
        match attack:
            case "noise":
                stage = Stage(attack, 0, count, mix=_MIX)
            case "prune":
                stage = Stage(attack, 0, count, rank=sum(stage.name == attack for stage in stages))
            case _:
                stage = Stage(attack, count, norm=other or None)
        stages += [stage] * (count > 0)
    return stages


def _round(norm: str, number: int, starts: _Starts, unit: int, classes: int) -> list[Stage]:
    """The first round starts from the input where it can, later ones from noise, and aim at further classes."""
    own = (2 if norm == "l0" else 4) * unit
    again = Stage("noise", 0, own, mix=_MIX, draw=_DRAWS + number)
    stages = [again if number > 0 else Stage("pdgd" if norm == "l2" else "pdpgd", own)]
    if starts.towards and number + 1 < classes:
        stages.append(Stage("towards", 2 * unit, rank=number + 1))
    lead = unit // LEAD if norm in ("l1", "l0") else 0
    noise = Stage("pdpgd_l2", lead, unit - lead) if lead else Stage("noise", 0, unit)
    draws = [(MIXES[i % len(MIXES)], starts.noise * number + i) for i in range(starts.noise)]
    return stages + [noise._replace(mix=mix, draw=draw) for mix, draw in draws]

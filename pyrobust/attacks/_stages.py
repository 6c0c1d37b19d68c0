"""How :func:`pyrobust.attacks.minimum_norm` shares its budget out to attacks.

What a search finds depends most on the basin that it starts in. So where the budget allows, a stage is a start and a short
run that closes in on the boundary from there; the nearest few points are gone on from, and the nearest of all is refined at
last. In linf, l2 and l1 these are the starts of the primal-dual attacks themselves (``_runs.py``), one a stage, so that each
can tell where it led. In l2 and l1 more of them start between two of the nearest points so far, with some elements noise: a
memetic search (Moscato 1989), a genetic one whose every child is improved. On linf-trained MNIST networks such starts lower
the norm more than twice as far as as many from fresh noise. In l1 the nearest points then exchange elements for those of all the
others (``_exchange.py``). In l0, where pixels have one value, starts are runs in l1, which lead to the sparsest points; on
colour images they are attacks of l0 itself.

The shares were chosen on images that no table reports.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

from pyrobust.attacks._common import FORWARDS
from pyrobust.attacks._runs import LEAD

_T = TypeVar("_T")


class Stage(NamedTuple):
    """A part of the budget.

    Attributes:
        name: as the result tells it: an attack; "towards" another class; "noise", started from; "pdpgd_l2" and "pdpgd_linf",
            points that these lead to from there, started from; "between" two of the nearest points so far, started from;
            "again", one of the nearest points of those; "refine", the nearest point so far; one of the nearest points made
            sparser by "prune" (``_pruning.py``), or nearer by "exchange" (``_exchange.py``).
        steps: of the attack (superdeepfool: gradients, ``CANDIDATES`` a step); of the one that leads to where a run starts.
        refine: steps of the run from a start; gradients that a prune or an exchange takes as long as.
        restarts: of the attack.
        draw: from 0 on: tells the noise of stages apart; for "exchange" of the first trial, the next ones follow.
        rank: for "towards": of the class by its logit at the input, 1 the second of those that are not the label. For "again",
            "prune" and "exchange": of the point, 0 the nearest. For "between": of the point beside the nearest.
        mix: share of noise in the points to start at; 0: the input. For "between": of elements that are noise.
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
        return not (self.goes_on or self.name in ("between", "refine"))

    @property
    def adds(self) -> bool:
        """Whether what it finds is one more point, rather than a nearer one in place of another."""
        return self.is_start or self.name == "between"

    @property
    def lead(self) -> str | None:
        """The norm that leads to where the run starts."""
        return self.name.removeprefix("pdpgd_") if self.name.startswith("pdpgd_") else None

    @property
    def goes_on(self) -> bool:
        """Whether it goes on from one of the nearest points, to take its place."""
        return self.name in ("again", "prune", "exchange")


# Up to these budgets, shares of the attacks that are good within few steps. The first one has what is left. fmn is near the
# boundary after ten steps already, which pdpgd in l1 is not after twenty.
_SHARES: dict[str, dict[float, dict[str, float]]] = {
    "linf": {149: {"fmn": 0.5, "refine": 0.5}, 449: {"pdpgd": 1.0}},
    "l2": {
        14: {"fmn": 0.5, "refine": 0.5},
        39: {"fmn": 0.2, "superdeepfool": 0.4, "refine": 0.4},
        149: {"ddn": 0.12, "superdeepfool": 0.2, "noise": 0.2, "refine": 0.48},
        449: {"pdgd": 1.0},
    },
    "l1": {29: {"fmn": 1.0}, 449: {"pdpgd": 1.0}},
}


class _Starts(NamedTuple):
    """Starts of a norm: the share of the budget of one run from a start; how many of them from images mixed with noise; whether
    another class than the nearest is aimed at; how many from between two of the nearest points; how many of the nearest points
    are gone on from, and for how many units; for how many units each exchanges elements before that."""

    unit: float
    noise: int
    towards: bool = False
    between: int = 0
    places: int = 0
    further: float = 0.0
    exchange: float = 0.0


# By the largest budget that they are for.
_STARTS: dict[str, dict[float, _Starts]] = {
    "linf": {749: _Starts(0.06, 7, places=3, further=1.3), math.inf: _Starts(0.03, 16, True, 0, 4, 1.5)},
    "l2": {749: _Starts(0.04, 6, True, 10), math.inf: _Starts(0.02, 8, True, 24, 3, 1.5)},
    "l1": {749: _Starts(0.05, 5, True, 4, 2, 1.25, 0.4), math.inf: _Starts(0.03, 8, True, 9, 4, 1.5, 0.6)},
}


class _Sparse(NamedTuple):
    """Shares of the budget in l0: two attacks of that norm; the run in l1 from the input, and each of those from images mixed with
    noise, ``noise`` of them; each of ``prunes`` of the sparsest points that all these led to. The first stage has what is left.

    More than one point is pruned, as what a set of pixels can be exchanged for depends on the set.
    """

    pdpgd: float = 0.0
    sigma_zero: float = 0.0
    own: float = 0.0
    unit: float = 0.0
    noise: int = 0
    prunes: int = 0
    prune: float = 0.0


# By the largest budget that they are for; by whether pixels have several values. Where they have one, and are often black or
# white, the sparsest points come from l1, and mostly from noise; on colour images attacks of l0 itself find sparser ones,
# pdpgd within fewer steps than sigma_zero.
_SPARSE: dict[bool, dict[float, _Sparse]] = {
    False: {
        99: _Sparse(own=0.6, unit=0.4, noise=1),
        199: _Sparse(own=0.35, unit=0.2, noise=2, prunes=1, prune=0.25),
        449: _Sparse(own=0.3, unit=0.15, noise=3, prunes=1, prune=0.25),
        749: _Sparse(own=0.1, unit=0.05, noise=12, prunes=2, prune=0.15),
        math.inf: _Sparse(own=0.06, unit=0.03, noise=22, prunes=2, prune=0.14),
    },
    True: {
        99: _Sparse(pdpgd=1.0),
        199: _Sparse(pdpgd=0.4, prunes=1, prune=0.6),
        449: _Sparse(pdpgd=0.5, prunes=1, prune=0.5),
        math.inf: _Sparse(pdpgd=0.3, sigma_zero=0.2, prunes=2, prune=0.25),
    },
}
# Where runs start, in turn: the share of noise in the image, and the norm of a short run that leads on from there. What a norm
# finds differs with what led to it, and on some networks the one that is seldom better finds the nearest point of all.
_FROM: dict[str, tuple[tuple[float, str | None], ...]] = {
    "linf": ((0.5, None), (0.75, None)),
    "l2": ((0.5, None), (0.75, "linf"), (0.75, None), (0.5, "linf")),
    "l1": ((0.5, "l2"), (0.5, None), (0.75, "l2"), (0.75, None)),
}
_FIRST_FROM: dict[str, tuple[tuple[float, str | None], ...]] = {"l2": ((0.0, "linf"), (0.1, "linf"))}  # before those
CANDIDATES = 2  # classes that superdeepfool considers
_OWN = 3.5  # units of the run from the input
_MIX = 0.5  # of noise, in the longest run of a further round
_OTHERS = 3  # places beside the nearest that starts lie between in turn
_REPLACED = 0.15  # share of the elements there that are noise
# From there on draws are numbered that are not those of the starts from noise.
_DRAWS, _BETWEEN, _EXCHANGE = 100_000, 200_000, 1_000_000
_RUN = 1000  # gradients; a larger budget buys as many starts again


def plan(norm: str, budget: int, classes: int, *, several: bool = False, reserved: int = 0) -> list[Stage]:
    """The stages of a search; their gradients add up to ``budget`` − ``reserved`` at most.

    Args:
        classes: that the attack may run into: 1 where it is targeted.
        several: whether pixels have several values.
        reserved: gradients that are spent elsewhere; which plan it is follows from the whole budget.
    """
    free, rounds = budget - reserved, max(1, budget // _RUN)
    if norm == "l0":
        return _sparse(free, rounds, _of(_SPARSE[several], budget))
    for most, shares in _SHARES[norm].items():
        if budget <= most:
            steps = {name: _usable(name, int(share * free), classes) for name, share in shares.items()}
            steps[next(iter(steps))] += free - sum(steps.values())
            return [_few_steps(name, count) for name, count in steps.items() if count > 0]
    starts = _of(_STARTS[norm], budget)
    unit = int(starts.unit * free / rounds)
    stages = [
        stage
        for number in range(rounds)
        for stage in _round(norm, number, int(_OWN * unit), unit, starts.noise, classes if starts.towards else 0)
    ]
    stages += [
        Stage("between", 0, unit, draw=_BETWEEN + number, rank=1 + number % _OTHERS, mix=_REPLACED)
        for number in range(starts.between * rounds)
    ]
    each = int(starts.exchange * unit)
    stages += [
        Stage("exchange", 0, each, draw=_EXCHANGE + FORWARDS * each * place, rank=place)
        for place in range(starts.places * rounds if each > 0 else 0)
    ]
    stages += [Stage("again", 0, int(starts.further * unit), rank=place) for place in range(starts.places * rounds)]
    return [*stages, Stage("refine", 0, free - sum(stage.cost for stage in stages))]


def _of(table: dict[float, _T], budget: int) -> _T:
    return next(entry for most, entry in table.items() if budget <= most)


def _sparse(budget: int, rounds: int, shares: _Sparse) -> list[Stage]:
    own, unit = (int(share * budget / rounds) for share in (shares.own, shares.unit))
    before = {"pdpgd": shares.pdpgd, "sigma_zero": shares.sigma_zero}
    stages = [Stage(name, int(share * budget / rounds), restarts=rounds) for name, share in before.items() if share > 0]
    if shares.own > 0:
        noise = shares.noise if unit > 0 else 0
        runs = [run for number in range(rounds) for run in _round("l1", number, own, unit, noise, 0)]
        stages += [run._replace(norm="l1") for run in runs]
    prunes = min(shares.prunes * rounds, len(stages))
    each = int(shares.prune * shares.prunes * budget / max(1, prunes))
    if each > 0:
        stages += [Stage("prune", 0, each, rank=place) for place in range(prunes)]
    first, left = stages[0], budget - sum(stage.cost for stage in stages)
    return [first._replace(steps=first.steps + left // first.restarts), *stages[1:]]


def _usable(name: str, gradients: int, classes: int) -> int:
    """How many of these the stage can spend: superdeepfool ``CANDIDATES`` a step, and none where there is no choice of classes."""
    if name != "superdeepfool":
        return gradients
    return gradients - gradients % CANDIDATES if classes >= CANDIDATES else 0


def _few_steps(name: str, steps: int) -> Stage:
    if name in ("noise", "refine"):
        return Stage(name, 0, steps, mix=_MIX if name == "noise" else 0.0)
    return Stage(name, steps)


def _round(norm: str, number: int, own: int, unit: int, noise: int, classes: int) -> list[Stage]:
    """The first round starts from the input where it can, later ones from noise, and aim at further classes.

    Args:
        own: steps of the longest run, from the input or in its place.
        unit: of each of the ``noise`` others, and half as many as of the run towards a further class.
        classes: that may be aimed at; 0: none is.
    """
    again = Stage("noise", 0, own, mix=_MIX, draw=_DRAWS + number)
    stages = [again if number > 0 else Stage("pdgd" if norm == "l2" else "pdpgd", own)]
    if number + 1 < classes:
        stages.append(Stage("towards", 2 * unit, rank=number + 1))
    before = tuple(start for start in _FIRST_FROM.get(norm, ()) if number == 0 or start[0] > 0)
    starts = [*before, *(_FROM[norm] * noise)][:noise]
    return stages + [_from(mix, lead, unit, noise * number + draw) for draw, (mix, lead) in enumerate(starts)]


def _from(mix: float, lead: str | None, unit: int, draw: int) -> Stage:
    steps = unit // LEAD if lead is not None else 0
    return Stage(f"pdpgd_{lead}" if steps else "noise", steps, unit - steps, mix=mix, draw=draw)

"""Where the runs of a primal-dual attack start, and what becomes of the points that they led to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import rows_like
from pyrobust.attacks._pool import Entry, Pool, nearer
from pyrobust.attacks._runs import Run, Schedule
from pyrobust.ops import PrimalDualState

_NOISE = 0.5  # radius of the linf ball that noise is uniform in, in units of the width of the bounds
_NEARBY = 0.25  # the same, in place of the input itself, from the second restart on
_NEARBY_DRAWS = 2**31  # numbers the noise of those; other noise is numbered from 0 on
_PREFERS_NOISE = 0.9  # a sample does where noise led to a point this much nearer than the input did


class Starts(Protocol):
    """The state's keeper between two runs."""

    def begin(self, run: Run, restart: int) -> None:
        """Judge the run that has ended, and put every sample where the next one starts.

        Args:
            restart: 0 at first; later ones start near the input rather than at it.
        """

    def targets(self, run: Run) -> Tensor | None:
        """int64 (N,): the class that a run aims at; None: that of the best point, or the runner-up."""

    def seen(self) -> PrimalDualState:
        """The state, with the nearest points of all."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What starts are found from.

    Attributes:
        ranked: int64 (K, N), classes by their logits at the input, the label last.
        best_class: int64 (N,), kept by :func:`pyrobust.ops.attack_seed`.
    """

    state: PrimalDualState
    inputs: Tensor
    bounds: Bounds
    distance: Callable[[Tensor], Tensor]
    schedule: Schedule
    ranked: Tensor
    best_class: Tensor
    seed: int
    sample_ids: Tensor

    def noise(self, radius: float, draw: int) -> Tensor:
        """(N, …) uniform around the inputs, inside the bounds."""
        low, high = self.bounds
        radius *= high - low
        noise = ops.sample_lp_ball(self.inputs, math.inf, radius, seed=self.seed, sample_ids=self.sample_ids, step=draw)
        return noise.add_(self.inputs).clamp_(low, high)

    def restart(self, start: Tensor, refines: bool, norm: str | None = None) -> None:
        """Put the state there; its distance is in ``norm``, where that is another."""
        ratio = self.schedule.refine_ratio if refines else self.schedule.ratio
        r = start - self.inputs
        self.state.restart(start, ratio, self.distance(r) if norm is None else ops.lp_norm(r, norm))


def mixed(inputs: Tensor, share: float, bounds: Bounds, *, seed: int, sample_ids: Tensor, draw: int) -> Tensor:
    """The inputs, mixed with a share of images uniform in the bounds."""
    low, high = bounds
    radius = 0.5 * (high - low)
    noise = ops.sample_lp_ball(inputs, math.inf, radius, seed=seed, sample_ids=sample_ids, step=draw)
    return torch.lerp(inputs, noise.add_(0.5 * (low + high)), share).clamp_(low, high)


class ManyStarts:
    """Of runs that close in: each start's own best point, the nearest few of which are gone on from."""

    def __init__(self, problem: Problem, places: int) -> None:
        self._at, self._size = problem, places
        self._draws = 0
        self._restart = 0
        self._run: Run | None = None  # that opened the start
        self._norm: str | None = None  # of the run under way, where it is another
        state = problem.state
        self._nearest: Entry = (state.best_distance.clone(), state.best.clone())
        self._own: Entry = self._nearest  # of this start, before the run that is under way
        self._pool = Pool(places)

    def targets(self, run: Run) -> Tensor | None:
        return None if run.rank is None else self._at.ranked[run.rank]

    def begin(self, run: Run, restart: int) -> None:
        at, state = self._at, self._at.state
        self._own, _ = nearer(self._own, self._found())
        if run.start != "own":
            self._keep(run, restart)
        match run.start:
            case "own":
                start = self._own[1]
            case "best":
                start = self._nearest[1]
            case "place":
                start = self._pool.places[run.place][1]
            case "mixed":
                start = mixed(at.inputs, run.mix, at.bounds, seed=at.seed, sample_ids=at.sample_ids, draw=self._draws)
                self._draws += 1
            case _:
                start = at.inputs if restart == 0 else at.noise(_NEARBY, _NEARBY_DRAWS + restart)
        # The first pass judges the start again, and finds the class that it is in.
        state.best.copy_(at.inputs)
        state.best_distance.fill_(math.inf)
        self._norm = at.schedule.lead.norm if at.schedule.lead is not None and run.closing == at.schedule.lead else None
        at.restart(start, run.start in ("own", "best", "place"), self._norm)

    def _found(self) -> Entry:
        """The best point of the run under way, in the attack's norm."""
        state, at = self._at.state, self._at
        distance = state.best_distance.clone()
        if self._norm is not None:
            distance = torch.where(distance < math.inf, at.distance(state.best - at.inputs), distance)
        return distance, state.best.clone()

    def _keep(self, run: Run, restart: int) -> None:
        """Put away the best point of the start that has ended."""
        if restart > self._restart:
            self._restart, self._pool = restart, Pool(self._size)
        elif self._run is not None and self._run.start == "place":
            self._pool.improve(self._run.place, self._own)
        else:
            self._pool.add(self._own)
        self._nearest, _ = nearer(self._nearest, self._own)
        self._own = (torch.full_like(self._own[0], math.inf), self._at.inputs)
        self._run = run

    def seen(self) -> PrimalDualState:
        own, _ = nearer(self._own, self._found())
        (distance, best), _ = nearer(self._nearest, own)
        return dataclasses.replace(self._at.state, best=best, best_distance=distance)


class TwoOrigins:
    """Of runs that explore: whether the input or noise has served each sample better."""

    def __init__(self, problem: Problem) -> None:
        self._at, state = problem, problem.state
        self._from_input = torch.full_like(state.best_distance, math.inf)  # the nearest point so far of either origin,
        self._from_noise = self._from_input.clone()  # if it was the nearest of all when it was found
        self._favourite = problem.inputs  # the noise that led to the nearest point
        self._start, self._noisy = problem.inputs, torch.zeros_like(problem.sample_ids, dtype=torch.bool)
        self._before = state.best_distance.clone()
        self._draws = 0

    def targets(self, run: Run) -> Tensor | None:
        if run.rank is None:
            return None
        towards = self._at.ranked[run.rank]
        return torch.where(self._prefer_noise(), self._at.best_class, towards) if run.start == "either" else towards

    def begin(self, run: Run, restart: int) -> None:
        state, inputs = self._at.state, self._at.inputs
        self._draws += 1
        better = state.best_distance < self._before
        for found, here in ((self._from_input, ~self._noisy), (self._from_noise, self._noisy)):
            found.copy_(torch.where(better & here, state.best_distance, found))
        self._favourite = torch.where(rows_like(better & self._noisy, inputs), self._start, self._favourite)
        self._before = state.best_distance.clone()

        prefer = self._prefer_noise()
        self._noisy = {"noise": torch.ones_like(prefer), "input": torch.zeros_like(prefer)}.get(run.start, prefer)
        if run.start == "best":
            self._start = state.best.clone()
        else:
            near = inputs if restart == 0 else self._at.noise(_NEARBY, self._draws)
            noise = self._favourite if run.start == "again" else self._at.noise(_NOISE, self._draws)
            self._start = torch.where(rows_like(self._noisy, inputs), noise, near)
        self._at.restart(self._start, run.start == "best")

    def _prefer_noise(self) -> Tensor:
        return self._from_noise < _PREFERS_NOISE * self._from_input

    def seen(self) -> PrimalDualState:
        return self._at.state

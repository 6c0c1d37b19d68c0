"""Run the stages of :func:`pyrobust.attacks.minimum_norm` on a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrobust._checks import Bounds
from pyrobust.attacks._common import FORWARDS, Model
from pyrobust.attacks._exchange import Changes, exchange_elements
from pyrobust.attacks._pool import Pool
from pyrobust.attacks._pruning import prune_groups
from pyrobust.attacks._queries import uniform
from pyrobust.attacks._stages import CANDIDATES, Stage
from pyrobust.attacks._starts import mixed
from pyrobust.attacks.ddn import ddn
from pyrobust.attacks.fmn import fmn
from pyrobust.attacks.pdgd import pdgd
from pyrobust.attacks.pdpgd import pdpgd
from pyrobust.attacks.sigma_zero import sigma_zero
from pyrobust.attacks.superdeepfool import superdeepfool


@dataclass(frozen=True)
class Runner:
    """What every stage is called with.

    Attributes:
        ranked: int64 (K, N): the classes by their logits at the input, the label last; where ``targeted`` none is read.
    """

    model: Model
    inputs: Tensor
    labels: Tensor
    norm: str
    grouping: str
    targeted: bool
    bounds: Bounds
    seed: int
    sample_ids: Tensor
    ranked: Tensor

    def points(self, stage: Stage, best: Tensor, pool: Pool, changes: Changes) -> Tensor:
        """The points that a stage finds, nearest in its norm.

        Args:
            best: like the inputs, the nearest points so far.
            pool: of (distance, points, …), those that starts have led to.
            changes: of the points that all runs have led to.
        """
        norm, restarts = stage.norm or self.norm, {"restarts": stage.restarts}
        primal_dual = pdgd if norm == "l2" else pdpgd
        match stage.name:
            case "ddn":
                return self._call(ddn, norm, stage.steps, **restarts)
            case "fmn":
                return self._call(fmn, norm, stage.steps, **restarts)
            case "superdeepfool":
                return superdeepfool(
                    self.model, self.inputs, self.labels, steps=stage.steps // CANDIDATES, candidates=CANDIDATES, search_steps=0,
                    bounds=self.bounds, eval_mode=False, **self._keys(),
                )  # fmt: skip
            case "sigma_zero":
                return self._call(sigma_zero, norm, stage.cost)
            case "pdpgd" | "pdgd":
                return self._call(primal_dual, norm, stage.steps, **restarts)
            case "towards":
                labels = self.ranked[stage.rank].contiguous()
                return self._call(primal_dual, norm, stage.steps, labels=labels, targeted=True)
            case "again":
                return self._call(pdpgd, norm, stage.refine, starts=pool.places[stage.rank][1])
            case "prune":
                return prune_groups(
                    self.model, self.inputs, self.labels, pool.places[stage.rank][1], self.grouping, self.bounds,
                    steps=stage.refine, targeted=self.targeted,
                )  # fmt: skip
            case "exchange":
                return exchange_elements(
                    self.model, self.inputs, self.labels, pool.places[stage.rank][1], changes, self.bounds,
                    trials=FORWARDS * stage.refine, targeted=self.targeted, draw=stage.draw, **self._keys(),
                )  # fmt: skip
            case "refine":
                return self._call(primal_dual, norm, stage.refine, starts=best)
            case "between":
                start = self._between(stage, pool.places[0][1], pool.places[stage.rank][1])
            case _:
                start = self._mixed(stage)
        if stage.lead is not None:
            # From the input itself a run finds the boundary by its own means.
            start = self._call(pdpgd, stage.lead, stage.steps, **({"starts": start} if stage.mix > 0 else {}))
        return self._call(pdpgd, norm, stage.refine, starts=start)

    def _call(self, attack: Callable[..., Tensor], norm: str, steps: int, **options: Any) -> Tensor:
        if norm == "l0":
            options["grouping"] = self.grouping
        if attack in (pdpgd, fmn):
            options["norm"] = norm
        options = {
            "labels": self.labels, "targeted": self.targeted, "steps": steps, "bounds": self.bounds, "seed": self.seed,
            "sample_ids": self.sample_ids, "eval_mode": False, **options,  # the search has set the mode
        }  # fmt: skip
        return attack(self.model, self.inputs, **options)

    def _mixed(self, stage: Stage) -> Tensor:
        return mixed(self.inputs, stage.mix, self.bounds, draw=stage.draw, **self._keys())

    def _between(self, stage: Stage, one: Tensor, other: Tensor) -> Tensor:
        """Halfway between two points, but a share of the elements uniform in the bounds."""
        low, high = self.bounds
        draws = uniform(self.sample_ids, one[0].numel(), self.seed, stage.draw).to(one.dtype).view_as(one)
        noise = torch.lerp(one.new_tensor(low), one.new_tensor(high), draws / stage.mix)
        return torch.where(draws < stage.mix, noise, torch.lerp(one, other, 0.5))

    def _keys(self) -> dict[str, Any]:
        return {"seed": self.seed, "sample_ids": self.sample_ids}

"""Run the stages of :func:`pyrobust.attacks.minimum_norm` on a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model
from pyrobust.attacks._stages import Stage
from pyrobust.attacks.ddn import ddn
from pyrobust.attacks.pdgd import pdgd
from pyrobust.attacks.pdpgd import pdpgd
from pyrobust.attacks.sigma_zero import sigma_zero


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

    def points(self, stage: Stage, best: Tensor) -> Tensor:
        """The points that a stage finds, nearest in its norm.

        Args:
            best: like the inputs, the nearest points so far.
        """
        norm, restarts = stage.norm or self.norm, {"restarts": stage.restarts}
        match stage.name:
            case "ddn":
                return self._call(ddn, norm, stage.steps, **restarts)
            case "sigma_zero":
                return self._call(sigma_zero, norm, stage.cost)
            case "towards":
                return self._call(pdpgd, norm, stage.steps, labels=self.ranked[stage.rank].contiguous(), targeted=True)
            case "refine":
                return self._call(pdpgd, norm, stage.refine, starts=best)
            case "pdgd":
                return self._call(pdgd, norm, stage.refine, starts=best)
        start: dict[str, Tensor] = {"starts": self._mixed(stage)} if stage.mix else {}
        if stage.name == "pdpgd":
            return self._call(pdpgd, norm, stage.steps, **restarts)
        if stage.name != "noise":
            start = {"starts": self._call(pdpgd, stage.name.removeprefix("pdpgd_"), stage.steps, **start)}
        return self._call(pdpgd, norm, stage.refine, **start)

    def _call(self, attack: Callable[..., Tensor], norm: str, steps: int, **options: Any) -> Tensor:
        if norm == "l0":
            options["grouping"] = self.grouping
        if attack is pdpgd:
            options["norm"] = norm
        options = {
            "labels": self.labels, "targeted": self.targeted, "steps": steps, "bounds": self.bounds, "seed": self.seed,
            "sample_ids": self.sample_ids, **options,
        }  # fmt: skip
        return attack(self.model, self.inputs, **options)

    def _mixed(self, stage: Stage) -> Tensor:
        """The inputs, mixed with images uniform in the bounds."""
        low, high = self.bounds
        noise = ops.sample_lp_ball(
            self.inputs, math.inf, 0.5 * (high - low), seed=self.seed, sample_ids=self.sample_ids, step=stage.draw
        ).add_(0.5 * (low + high))
        return torch.lerp(self.inputs, noise, stage.mix).clamp_(low, high)

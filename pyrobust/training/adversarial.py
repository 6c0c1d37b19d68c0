"""Adversarial training: the loss at the worst points that an attack finds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

import pyrobust.attacks
from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._common import check_number
from pyrobust.training._ascent import Ascent, evaluated
from pyrobust.training._losses import cross_entropy, summed_cross_entropy
from pyrobust.training.randomness import keyed_seed
from pyrobust.training.term import Batch, Term

Attack = Callable[..., Tensor]
Labels = Literal["true", "predicted"]


class AdversarialTraining(Term):
    """CE(x̂), or CE(x) + weight · CE(x̂); x̂ the last point of an ascent of CE in the ball around x, from a random start.

    Known settings:

    * Madry et al. 2018, the "PGD (7–2–8)" of seed 000: eps 8/255, steps 7, step_size 2/255. Seed 000: start 50.
    * Goodfellow et al. 2015 (FGSM): steps 1, step_size eps, random_start False, weight 1.
    * Wong et al. 2020 (fast): steps 1, step_size 1.25 eps.
    * Kurakin et al. 2017, against labels that leak into one-step points: labels "predicted".

    Args:
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of the ascent, at least 1.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        random_start: start uniformly in the ball, else at the input.
        weight: λ >= 0 of the loss at x̂ beside the loss at x; None: the loss at x̂ alone.
        labels: "true", or "predicted": those that the ascent moves away from.
        start: epochs of plain training before the first x̂.
        warmup: epochs over which eps and step_size then grow linearly from 0.
        smoothing: of the labels of both losses, in [0, 1] (see :class:`LabelSmoothing`); x̂ is found with the labels as they are.
        attack: in place of the ascent: a function with the signature of :mod:`pyrobust.attacks`, or its name there. It is
            given what it takes of eps, norm, steps, step_size, random_start and eval_mode; fix its other arguments by
            functools.partial. Its points are projected onto the ball, so an attack for the smallest perturbation serves too.
        eval_mode: run the model in evaluation mode inside the ascent.

    Raises:
        ValueError: naming the argument.

    Cost: steps + 1 forward and backward passes, with ``weight`` one more of each; "predicted" without ``weight``: one more
        forward pass. Before ``start`` one of each. Another attack: as it says.
    Source: Madry et al. 2018, eq. 2.1; seed 003, eq. 2.20–2.22; seed 000, §6; seed 002, eq. 3 with α = 1 / (1 + weight).
    """

    classifies = True

    def __init__(
        self,
        eps: float,
        norm: Norm = "linf",
        steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        weight: float | None = None,
        labels: Labels = "true",
        start: float = 0.0,
        warmup: float = 0.0,
        smoothing: float = 0.0,
        attack: Attack | str | None = None,
        eval_mode: bool = True,
    ) -> None:
        super().__init__()
        self.ascent = Ascent(eps, norm, steps, step_size, eval_mode)
        if labels not in get_args(Labels):
            raise ValueError(f"labels: expected one of {', '.join(get_args(Labels))}, got {labels!r}")
        self.labels: Labels = labels
        self.random_start = random_start
        self.weight = None if weight is None else check_number("weight", weight, 0)
        self.start = check_number("start", start, 0)
        self.warmup = check_number("warmup", warmup, 0)
        self.smoothing = check_number("smoothing", smoothing, 0, 1)
        self.attack = None
        if attack is not None:
            offered = {"norm": norm_name(norm), "steps": steps, "random_start": random_start, "eval_mode": eval_mode}
            self.attack = _bind(attack, offered)
            fixed = _fixed(attack) & {"eps", "step_size", "bounds", "seed", "sample_ids"}
            if fixed:
                raise ValueError(f"attack: {', '.join(sorted(fixed))}: expected to be left to the objective")
            self.scaled = _taken(self.attack, {"eps": eps} | ({} if step_size is None else {"step_size": step_size}))

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        if batch.epoch < self.start:
            return self._loss(batch.logits(model), batch)
        loss = self._loss(model(self.points(model, batch)), batch)
        if self.weight is None:
            return loss
        return self._loss(batch.logits(model), batch) + self.weight * loss

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(logits, batch.labels, self.smoothing)

    def points(self, model: nn.Module, batch: Batch) -> Tensor:
        """The points x̂ of a step, detached."""
        scale = 1.0 if self.warmup == 0 else min(1.0, (batch.epoch - self.start) / self.warmup)
        labels = batch.labels
        if self.labels == "predicted":
            # With a weight the loss asks for the clean logits anyway.
            clean = (
                evaluated(model, batch.inputs, self.ascent.eval_mode) if self.weight is None else batch.logits(model)
            )
            labels = clean.detach().argmax(1)
        if self.attack is not None:
            return self._attacked(self.attack, model, batch, labels, scale)
        start = self.ascent.anywhere(batch, scale) if self.random_start else batch.inputs.detach().clone()
        return self.ascent(model, batch, lambda logits: summed_cross_entropy(logits, labels), start, scale)

    def _attacked(self, attack: Attack, model: nn.Module, batch: Batch, labels: Tensor, scale: float) -> Tensor:
        """What the attack finds, projected onto ball ∩ bounds."""
        inputs, seed = batch.inputs.detach().contiguous(), keyed_seed(batch.seed, batch.step)
        sizes = {name: scale * value for name, value in self.scaled.items()}
        keys = {"bounds": batch.bounds, "seed": seed, "sample_ids": batch.sample_ids}
        adv = attack(model, inputs, labels, **_taken(attack, keys), **sizes).detach().clone()
        still = torch.zeros_like(adv)
        return ops.pgd_step_(adv, still, inputs, self.ascent.p, scale * self.ascent.eps, 0.0, batch.bounds)


def _bind(attack: Attack | str, offered: dict[str, Any]) -> Attack:
    """The attack with those of the arguments that it takes and that are not fixed already.

    Raises:
        ValueError: nothing of that name exists, or it is made for other norms.
    """
    function = getattr(pyrobust.attacks, attack, None) if isinstance(attack, str) else attack
    if not callable(function):
        raise ValueError(f"attack: expected a function, or a name in pyrobust.attacks, got {attack!r}")
    fixed, inner = _fixed(function), function
    while isinstance(inner, functools.partial):
        inner = inner.func
    norms = getattr(inner, "norms", None)
    if norms is not None and offered["norm"] not in norms:
        raise ValueError(f"attack: expected one for norm {offered['norm']}, got one for {', '.join(norms)}")
    return functools.partial(function, **{k: v for k, v in _taken(inner, offered).items() if k not in fixed})


def _fixed(attack: Attack | str) -> set[str]:
    """The arguments that functools.partial has fixed already."""
    fixed: set[str] = set()
    while isinstance(attack, functools.partial):
        fixed |= attack.keywords.keys()
        attack = attack.func
    return fixed


def _taken(function: Attack, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that the function takes."""
    parameters = inspect.signature(function).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return offered if takes_any else {name: value for name, value in offered.items() if name in parameters}

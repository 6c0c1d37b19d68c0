"""The one call for the number: the smallest perturbation that a budget of gradients finds, by several attacks in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, overload

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust._counting import counted
from pyrobust.attacks._common import Callback, Model, check_call, check_count, check_grouping, clean_logits, undisturbed
from pyrobust.attacks._polish import bisect_to_boundary, drop_groups
from pyrobust.attacks._runner import Runner
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial
from pyrobust.attacks._stages import BY_L1, plan


@dataclass(frozen=True)
class MinimumNorms:
    """What is known of the result of :func:`minimum_norm`, one value a sample.

    Attributes:
        adv: (N, …), the adversarial inputs.
        norms: (N,) float64: 0 where the input is misclassified, inf where nothing was found.
        gradients, forwards: spent on each sample.
        stages: names of the stages that ran, in order.
        stage: int64 (N,): which of them found ``adv``; -1: none.
        gain: (N,) in [0, 1]: by what share the last three tenths of the budget lowered the norm found until then.
        converged: (N,) bool: something was found, and ``gain`` is below 1 %. A hint, not a proof: on two MNIST networks,
            doubling a budget of 1000 lowered the norm of one such sample in nine by more than 1 %, against one in five of
            the others.
    """

    adv: Tensor
    norms: Tensor
    gradients: int
    forwards: int
    stages: tuple[str, ...]
    stage: Tensor
    gain: Tensor
    converged: Tensor


_LATE = 0.7  # of the budget: what comes after it is late
_CONVERGED = 0.01
_BISECTIONS = 10  # to a thousandth of the perturbation


@overload
def minimum_norm(
    model: Model, inputs: Tensor, labels: Tensor, *, norm: Norm = ..., budget: int = ..., grouping: str | None = ...,
    targeted: bool = ..., bounds: Bounds = ..., seed: int = ..., sample_ids: Tensor | None = ...,
    callback: Callback | None = ..., eval_mode: bool = ..., return_info: Literal[False] = ...,
) -> Tensor: ...  # fmt: skip


@overload
def minimum_norm(
    model: Model, inputs: Tensor, labels: Tensor, *, norm: Norm = ..., budget: int = ..., grouping: str | None = ...,
    targeted: bool = ..., bounds: Bounds = ..., seed: int = ..., sample_ids: Tensor | None = ...,
    callback: Callback | None = ..., eval_mode: bool = ..., return_info: Literal[True],
) -> MinimumNorms: ...  # fmt: skip


def minimum_norm(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    budget: int = 1000,
    grouping: str | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
    return_info: bool = False,
) -> Tensor | MinimumNorms:
    """min ‖r‖ such that inputs + r is adversarial and inside ``bounds``: several attacks in turn, each stage judged
    here, then a polish of the nearest point by forward passes alone.

    In linf, l2 and l1 a stage from 250 gradients on is a short run of :func:`pdpgd` that closes in from another start: the
    input, towards its two likeliest other classes; the points that it finds in other norms; images mixed with noise. The
    last one refines the nearest point of all. In l0, from 750 on: :func:`pdpgd`, :func:`sigma_zero`, and :func:`pdpgd` in
    l1, whose points are made as sparse as they can. Smaller budgets use what is good within few steps. Each further
    thousand of ``budget`` is as many starts again, from noise and towards further classes (in l0 a restart of each attack,
    and more steps of :func:`sigma_zero`).

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "linf", "l2", "l1" or "l0" (or inf, 2, 1, 0).
        budget: gradients a sample, >= 1.
        grouping: for l0: "pixel" (default for (N, C, H, W): the C values at a place count once) or "value" (default
            otherwise).
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(stage, SearchState) after each stage; the search stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.
        return_info: return :class:`MinimumNorms` instead.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already. With ``return_info`` that, the norms, what was spent, which stage won and whether
        more would help.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most ``budget`` backward passes, and a few dozen forward passes beyond as many forward passes.
    Source: this library's combination, measured by its strength benchmark; the stages name their own sources.
    """
    check_count(budget=budget)
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, 1, 1, sample_ids)
    name = norm_name(norm)
    grouping = check_grouping(grouping, name, inputs)
    samples = len(inputs)

    def distance_of(points: Tensor) -> Tensor:
        return ops.lp_norm(points - inputs, name, grouping)

    with undisturbed(model, eval_mode), counted(model) as (watched, spent):
        clean = clean_logits(watched, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        early: Tensor | None = None  # the distances found until it got late
        won = torch.full_like(labels, -1)
        names: list[str] = []

        def offer(points: Tensor) -> Tensor:
            with torch.no_grad():
                adversarial = is_adversarial(watched(points), labels, targeted)
            nearest.offer(points, distance_of(points), adversarial)
            return adversarial

        def sparsest(points: Tensor) -> Tensor:
            """Points that another norm led to, and that are to be compared in l0."""
            own = Nearest(inputs, is_adversarial(clean, labels, targeted))
            with torch.no_grad():
                own.offer(points, distance_of(points), is_adversarial(watched(points), labels, targeted))
            drop_groups(watched, inputs, labels, own, grouping, bounds, targeted)
            return own.adv

        def watch(to: str) -> Callback:
            def note(_: int, state: Any) -> None:
                nonlocal early
                if early is None and spent.gradients >= _LATE * budget * samples:
                    early = nearest.distance
                    if to == name:  # else the attack's distances are in another norm
                        early = torch.minimum(early, state.best_distance)

            return note

        ranked = clean if targeted else clean.scatter(1, labels.unsqueeze(1), -math.inf)
        ranked = ranked.argsort(dim=1, descending=True, stable=True).T
        runner = Runner(watched, inputs, labels, name, grouping, targeted, bounds, seed, sample_ids, ranked, watch)
        for stage in plan(name, budget, 1 if targeted else len(ranked) - 1):
            before = nearest.distance
            points = runner.points(stage, nearest.adv)
            if name == "l0" and stage.name == BY_L1:
                points = sparsest(points)
            state = SearchState(points, offer(points), nearest.adv, nearest.distance)
            won = torch.where(nearest.distance < before, len(names), won)
            names.append(stage.name)
            if callback is not None and callback(len(names) - 1, state):
                break
        else:
            rough = nearest.distance
            if name == "l0":
                drop_groups(watched, inputs, labels, nearest, grouping, bounds, targeted)
            else:
                bisect_to_boundary(watched, inputs, labels, nearest, name, _BISECTIONS, targeted)
            won = torch.where(nearest.distance < rough, len(names), won)
            names.append("polish")
    if not return_info:
        return nearest.adv
    norms = nearest.distance.double()
    before = torch.full_like(norms, math.inf) if early is None else early
    gain = torch.where(norms > 0, 1 - norms / before, 0.0).clamp_(0, 1).nan_to_num_(1.0)
    return MinimumNorms(
        adv=nearest.adv,
        norms=norms,
        gradients=spent.gradients // samples,
        forwards=spent.forwards // samples,
        stages=tuple(names),
        stage=won,
        gain=gain,
        converged=norms.isfinite() & (gain < _CONVERGED),
    )


minimum_norm.norms = ("l0", "l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

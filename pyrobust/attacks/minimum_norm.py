"""The one call for the number: the smallest perturbation that a budget of gradients finds, by several attacks in turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust._counting import counted
from pyrobust.attacks._common import Callback, Model, check_call, check_count, check_grouping, clean_logits, undisturbed
from pyrobust.attacks._exchange import Changes
from pyrobust.attacks._judge import judge, under_autocast
from pyrobust.attacks._polish import bisect_to_boundary, drop_groups, project_to_boundary
from pyrobust.attacks._pool import Pool
from pyrobust.attacks._runner import Runner
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial
from pyrobust.attacks._stages import plan


@dataclass(frozen=True)
class MinimumNorms:
    """What is known of the result of :func:`minimum_norm`, one value a sample.

    Attributes:
        adv: (N, …), the adversarial inputs.
        norms: (N,) float64: 0 where the input is misclassified, inf where nothing was found.
        gradients, forwards: spent on a sample, the mean rounded down.
        stages: names of the stages that ran, in order.
        stage: int64 (N,): which of them found ``adv``; -1: none.
        agreeing: int64 (N,): how many runs, from starts of their own or from between two of the nearest points, led to a point
            within 2 % of ``norms``. Stages that go on from one of the nearest points are none.
        converged: (N,) bool: at least six did, or the input is misclassified. Strong evidence, not a proof: on three MNIST
            networks in linf, l2 and l1, another thousand gradients lowered the norm of 2.2 % of such samples by more than
            1 %, and that of 20 % of the others. Fewer than six runs tell nothing: l0 on colour images, else budgets up to 449.
    """

    adv: Tensor
    norms: Tensor
    gradients: int
    forwards: int
    stages: tuple[str, ...]
    stage: Tensor
    agreeing: Tensor
    converged: Tensor


_AGREEING, _WITHIN = 6, 0.02  # runs that agree, and how closely
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
    here, then a polish of the nearest point, by forward passes and in linf and l2 one gradient.

    In linf, l2 and l1 these are, from 450 gradients on, the starts of :func:`pdpgd` (l2: :func:`pdgd`), each a stage: short
    runs that close in from the input, towards its two likeliest other classes, and from images mixed with noise, in l2 and l1
    partly by way of another norm; then in l2 and l1 from halfway between two of the nearest points so far, where 15 % of the
    elements are noise; in l1 the nearest few points exchange elements for those of others, judged by forward passes; the
    nearest few are gone on from, and the nearest of all is refined last. Smaller budgets go to these attacks themselves, and in
    l2 up to 149 to :func:`ddn`, :func:`superdeepfool` (where more than one class can be run into), and two runs that close in.
    In l0, where pixels have one value, these are runs that minimise the l1 norm, from the input and from images mixed with
    noise, and whose points are made as sparse as they can by forward passes; on colour images :func:`pdpgd`, and from 450
    gradients on :func:`sigma_zero` too. The sparsest one or two points are pruned: pixels that are not needed are undone, and
    others exchanged until one is not, a gradient telling which 32 changes are worth a forward pass. Each further thousand of
    ``budget`` is as many starts again, from noise and (not in l0) towards further classes.

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

    Cost: at most ``budget`` backward passes; as many forward passes, and a few dozen more. Pruning in l0 and exchanging in l1 take
    three forward passes in place of a gradient, which is as long; each run in l0 that minimises another norm takes up to 67 more.
    Superdeepfool synchronises with the device every five steps.
    Source: this library's combination, measured by its strength benchmark; the stages name their own sources.
    """
    check_count(budget=budget)
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, 1, 1, sample_ids, seed)
    name = norm_name(norm)
    grouping = check_grouping(grouping, name, inputs)
    samples = len(inputs)

    with undisturbed(model, eval_mode), counted(model) as (watched, spent):
        clean = clean_logits(watched, inputs, labels)
        already = is_adversarial(clean, labels, targeted)
        nearest = Nearest(inputs, already)
        won = torch.full_like(labels, -1)
        names: list[str] = []
        found: list[Tensor] = []  # by run that adds a point

        def offer(points: Tensor, to: Nearest) -> tuple[Tensor, Tensor]:
            """Whether they are adversarial, and how far they are: inf where they are not."""
            with torch.no_grad():
                adversarial = is_adversarial(watched(points), labels, targeted)
            distance = ops.lp_norm(points - inputs, name, grouping)
            to.offer(points, distance, adversarial)
            return adversarial, distance.masked_fill(~adversarial, math.inf)

        def sparsest(points: Tensor) -> Tensor:
            """Points that another norm led to, and that are to be compared in l0."""
            own = Nearest(inputs, already)
            offer(points, own)
            drop_groups(watched, inputs, labels, own, grouping, bounds, targeted)
            return own.adv

        ranked = clean if targeted else clean.scatter(1, labels.unsqueeze(1), -math.inf)
        ranked = ranked.argsort(dim=1, descending=True, stable=True).T
        runner = Runner(watched, inputs, labels, name, grouping, targeted, bounds, seed, sample_ids, ranked)
        projects = name in ("linf", "l2") and budget > 1  # at last, by one gradient
        several = inputs.ndim == 4 and inputs.shape[1] > 1
        stages = plan(name, budget, 1 if targeted else len(ranked) - 1, several=several, reserved=int(projects))
        pool = Pool(1 + max((stage.rank for stage in stages if not stage.is_start), default=-1))
        changes, exchanges = Changes(inputs), any(stage.name == "exchange" for stage in stages)
        for stage in stages:
            before = nearest.distance
            points = runner.points(stage, nearest.adv, pool, changes)
            if stage.norm is not None:
                points = sparsest(points)
            adversarial, distance = offer(points, nearest)
            if stage.adds:
                if exchanges:
                    changes.add(points - inputs, adversarial)
                pool.add((distance, points, torch.full_like(labels, len(found))))
                found.append(distance)
            elif stage.goes_on:
                pool.improve(stage.rank, (distance, points, pool.places[stage.rank][2]))
            state = SearchState(points, adversarial, nearest.adv, nearest.distance)
            won = torch.where(nearest.distance < before, len(names), won)
            names.append(stage.name if stage.norm is None else f"{stage.name} in {stage.norm}")
            if callback is not None and callback(len(names) - 1, state):
                break
        else:
            rough = nearest.distance
            if name == "l0":
                drop_groups(watched, inputs, labels, nearest, grouping, bounds, targeted)
            else:
                if projects:
                    project_to_boundary(watched, inputs, labels, nearest, name, bounds, targeted)
                bisect_to_boundary(watched, inputs, labels, nearest, name, _BISECTIONS, targeted)
            won = torch.where(nearest.distance < rough, len(names), won)
            names.append("polish")
        if under_autocast(inputs):
            nearest.adv, fooled = judge(watched, inputs, labels, nearest.adv, targeted, bounds)
            nearest.distance = ops.lp_norm(nearest.adv - inputs, name, grouping).masked_fill(~fooled, math.inf)
            won = torch.where(fooled, won, -1)
    if not return_info:
        return nearest.adv
    norms = nearest.distance.double()
    ends = torch.stack(found)
    for distance, _, run in pool.places:
        ends.scatter_(0, run.unsqueeze(0), distance.unsqueeze(0))
    agreeing = (ends <= (1 + _WITHIN) * norms).sum(0)
    return MinimumNorms(
        adv=nearest.adv,
        norms=norms,
        gradients=spent.gradients // samples,
        forwards=spent.forwards // samples,
        stages=tuple(names),
        stage=won,
        agreeing=agreeing.masked_fill_(norms.isinf(), 0),
        converged=norms.isfinite() & ((agreeing >= _AGREEING) | (norms == 0)),
    )


minimum_norm.norms = ("l0", "l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""Carlini and Wagner's attacks: a minimum-norm attack for l2 and linf by Adam on a penalty, in the variable that tanh
maps into the box."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_count,
    check_number,
    check_positive,
    clean_logits,
    logits_and_grad,
    rows_like,
    undisturbed,
)
from pyrobust.attacks._descent import LARGEST_CONST, ConstantSearch, Stages, margin_and_seed, start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_CONST = {"l2": 1e-3, "linf": 1e-5}
_BETAS = (0.9, 0.999)
_INSIDE = 1 - 1e-6  # atanh has no value at the bounds
_SHRINK = 0.9  # of τ, after each success
_SETTLED = 1e-4  # times c: an objective below it has nothing left to gain at this τ


@judged_in_float32
def carlini_wagner(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 1000,
    search_steps: int = 9,
    step_size: float = 0.01,
    const: float | None = None,
    confidence: float = 0.0,
    abort_early: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min over w of D(r) + c · (m + κ)₊, where inputs + r = centre + ½ width · tanh(w) is inside ``bounds`` for any w.

    m is the margin z_y − max_{i ≠ y} z_i and κ the ``confidence``. For l2, D = ‖r‖₂² and c is found by bisection, each
    search from the input. For linf, D = Σ (|rᵢ| − τ)₊: where a stage comes nearer τ ← 0.9 ‖r‖∞, else c ← 2 c, and w goes
    on from where it is. r and τ are in units of the width of ``bounds``.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" or "linf" (or 2, inf).
        steps: of Adam with each constant.
        search_steps: constants tried, with ``abort_early`` at least; ``steps`` · ``search_steps`` are taken in all.
        step_size: of Adam, > 0, in the variable w.
        const: the first c, > 0; default 1e-3 for l2, 1e-5 for linf.
        confidence: κ ≥ 0, in the units of the logits: only points with margin below −κ count.
        abort_early: a sample whose objective has stopped falling goes on to its next constant at once.
        restarts: runs; those after the first start at random within the distance of the best point so far.
        targeted: find the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) after each prediction, step counting over the constants; the
            attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point found; the input itself where none was, or where
        it is adversarial already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · search_steps · steps forward and backward passes, and one forward.
    Source: Carlini and Wagner 2017, §V-B, §VI-A to C (objective f₆); seed 003, §2.4.1.2 and §5.4 (9 constants from
    0.01, 10 000 steps each, no early abort).
    """
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    name = norm_name(norm, tuple(_CONST))
    const = _CONST[name] if const is None else const
    check_count(search_steps=search_steps)
    check_positive(step_size=step_size, const=const)
    check_number("confidence", confidence, 0)
    low, high = bounds
    width, half, middle = high - low, (high - low) / 2, (high + low) / 2
    margin = torch.empty(0)

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        rows = nearest.distance
        for run in range(restarts):
            start = start_of(run, inputs, nearest.adv, 2 if name == "l2" else math.inf, bounds, seed, sample_ids)
            origin = ((start.to(rows.dtype) - middle) / half).mul_(_INSIDE).atanh_()
            w, adam = origin.clone(), _Adam(origin, step_size)
            search: ConstantSearch | _ThresholdSearch
            if name == "l2":
                search = ConstantSearch(rows, const, steps, abort_early)
            else:
                search = _ThresholdSearch(rows, const, steps, abort_early)

            def seed_at(logits: Tensor, search: ConstantSearch | _ThresholdSearch = search) -> Tensor:
                nonlocal margin
                margin, rise = margin_and_seed(logits, labels, targeted)
                return rise.mul_(torch.where(margin > -confidence, search.const * half, 0.0).unsqueeze(1))

            for step in range(steps * search_steps):
                due = search.stages.begin_step()
                t = w.tanh()
                adv = t.mul(half).add_(middle).to(inputs.dtype).clamp_(low, high)
                _, grad = logits_and_grad(model, adv, seed_at)
                r = adv.sub(inputs).to(w.dtype)
                distance = ops.lp_norm(r, name)
                adversarial = margin < -confidence
                nearest.offer(adv, distance, adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                grad = grad.to(w.dtype)
                if isinstance(search, ConstantSearch):
                    search.found |= adversarial
                    grad.add_(r, alpha=1 / width)
                    penalty = (distance / width).square_()
                else:
                    search.reach(distance / width, adversarial)
                    ops.prox_l1_(r, search.threshold * width)  # what exceeds τ
                    penalty = ops.lp_norm(r, "l1") / width if due else distance
                    grad.add_(r.sign_(), alpha=0.5)
                adam.step_(w, torch.ops.aten.tanh_backward(grad, t), search.stages.step)
                if due:
                    again = search.advance(penalty + search.const * (margin + confidence).clamp_(min=0))
                    if name == "l2":
                        w = torch.where(rows_like(again, w), origin, w)
    return nearest.adv


carlini_wagner.norms = ("l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls


class _ThresholdSearch:
    """The threshold τ and the constant c of each sample in min Σ (|rᵢ| − τ)₊ + c · loss.

    Attributes:
        threshold, const: (N,).
        stages: of the samples' descents.
    """

    def __init__(self, rows: Tensor, const: float, steps: int, abort_early: bool) -> None:
        self.threshold = torch.ones_like(rows)
        self.const = torch.full_like(rows, const)
        self.stages = Stages(rows, steps, abort_early)
        self._reached = torch.full_like(rows, math.inf)

    def reach(self, distance: Tensor, adversarial: Tensor) -> None:
        """Note where the points of this step are."""
        self._reached = torch.where(adversarial, torch.minimum(distance, self._reached), self._reached)

    def advance(self, objective: Tensor) -> Tensor:
        """Check, as :meth:`Stages.over`; (N,) bool, who goes on with a smaller τ or a larger c."""
        over = self.stages.over(objective, objective < _SETTLED * self.const)
        smaller = _SHRINK * self._reached
        nearer = smaller < self.threshold
        self.threshold = torch.where(over & nearer, smaller, self.threshold)
        self.const = torch.where(over & ~nearer, 2 * self.const, self.const).clamp_(max=LARGEST_CONST)
        return over


class _Adam:
    """Adam with a step count for each sample.

    The averages are kept as they are after the correction of their bias, so that a count of 1 replaces them: a sample
    starts anew without a pass over its state.
    """

    def __init__(self, like: Tensor, step_size: float) -> None:
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._step_size = step_size

    def step_(self, variable: Tensor, grad: Tensor, count: Tensor) -> None:
        """variable ← variable − step_size · mean / (√square + 1e-8); ``grad`` is overwritten."""
        count = count.double()  # the weight has to be exactly 1 at a count of 1
        for average, value, beta in ((self._mean, grad, _BETAS[0]), (self._square, grad.square(), _BETAS[1])):
            weight = (1 - beta) / (1 - beta**count)
            average.lerp_(value, rows_like(weight, value).to(value.dtype))
        torch.sqrt(self._square, out=grad).add_(1e-8)
        variable.addcdiv_(self._mean, grad, value=-self._step_size)

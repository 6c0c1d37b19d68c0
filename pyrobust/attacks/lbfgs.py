"""The L-BFGS attack: a minimum-norm attack for l2 by projected quasi-Newton steps on a penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_count,
    check_positive,
    clean_logits,
    logits_and_grad,
    replace_rows_,
    undisturbed,
)
from pyrobust.attacks._descent import ConstantSearch, start_of
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._quasi_newton import InverseHessians
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_DECREASE = 1e-4  # of what the gradient promises, to accept a point


@judged_in_float32
def lbfgs(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 50,
    search_steps: int = 10,
    const: float = 0.1,
    memory: int = 5,
    abort_early: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min over r of ‖r‖₂² + c · loss(inputs + r) such that inputs + r is inside ``bounds``, by L-BFGS.

    The loss is −log p_t for a target t, else −log(1 − p_y): the cross-entropy of the classes other than y. c is found
    by bisection, each search from the input. r is in units of the width of ``bounds``.

    A step predicts one trial point x' and takes its gradient g'. Where the objective fell, x ← x' and t ← 1, else
    t ← t / 2; either way the pair (x' − x, g' − g) updates the inverse Hessian H. The next trial is box(x − t P H P g),
    P dropping the coordinates that the gradient holds at a bound.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" (or 2).
        steps: with each constant.
        search_steps: constants tried, with ``abort_early`` at least; ``steps`` · ``search_steps`` are taken in all.
        const: the first c, > 0.
        memory: pairs that H is made of.
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
    Source: Szegedy et al. 2014, §4.1; seed 003, eq. 2.14; seed 002, §2. The projection is that of Bertsekas 1982 in
    place of L-BFGS-B's path search, which needs many evaluations a step.
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    check_count(search_steps=search_steps, memory=memory)
    check_positive(const=const)
    low, high = bounds
    width = high - low
    loss = torch.empty(0)

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        rows = nearest.distance
        x = inputs.flatten(1).to(rows.dtype)
        for run in range(restarts):
            adv = start_of(run, inputs, nearest.adv, 2, bounds, seed, sample_ids)
            origin = adv.flatten(1).to(rows.dtype) - x
            trial, base = origin, origin.clone()
            base_grad = torch.zeros_like(x)
            base_value = torch.full_like(rows, torch.inf)
            size = torch.ones_like(rows)
            hessians = InverseHessians(x, memory, 0.5 * width * width)  # exact for ‖r‖² / width²
            search = ConstantSearch(rows, const, steps, abort_early)

            def seed_at(logits: Tensor, search: ConstantSearch = search) -> Tensor:
                nonlocal loss
                loss, seed = _loss_and_seed(logits.to(rows.dtype), labels, targeted)
                return seed.mul_(search.const.unsqueeze(1))

            for step in range(steps * search_steps):
                due = search.stages.begin_step()
                logits, grad = logits_and_grad(model, adv, seed_at)
                adversarial = is_adversarial(logits, labels, targeted)
                distance = ops.lp_norm(adv - inputs, 2)
                nearest.offer(adv, distance, adversarial)
                state = SearchState(adv, adversarial, nearest.adv, nearest.distance)
                if callback is not None and callback(step, state):
                    return nearest.adv
                search.found |= adversarial

                value = (distance / width).square_() + search.const * loss
                grad = grad.flatten(1).to(rows.dtype).add_(trial, alpha=2 / width**2)
                fresh = base_value.isinf()
                torch.sub(trial, base, out=hessians.s)
                torch.sub(grad, base_grad, out=hessians.y)
                accept = value <= base_value + _DECREASE * torch.linalg.vecdot(hessians.s, base_grad)
                replace_rows_(base, accept, trial)
                replace_rows_(base_grad, accept, grad)
                base_value = torch.where(accept, value, base_value)
                size = torch.where(accept, 1.0, size / 2)
                again = search.advance(base_value) if due else None
                if again is not None:
                    base_value.masked_fill_(again, torch.inf)
                # What the box does not let move down the gradient is held.
                point = x + base
                free = base_grad.sgn().mul_(-width).add_(point).clamp_(low, high).ne(point)
                torch.mul(base_grad, free, out=hessians.v)
                direction = hessians.update(~fresh, again).mul_(free)
                trial = torch.addcmul(base, direction, size.unsqueeze(1), value=-1)
                if again is not None:
                    replace_rows_(trial, again, origin)
                adv = trial.add_(x).clamp_(low, high).to(inputs.dtype).reshape(inputs.shape)
                trial = adv.flatten(1).to(rows.dtype) - x
    return nearest.adv


lbfgs.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls


def _loss_and_seed(logits: Tensor, labels: Tensor, targeted: bool) -> tuple[Tensor, Tensor]:
    """−log p_t of the target, or −log(1 − p_y) of the label, and its gradient with respect to the logits."""
    y = labels.unsqueeze(1)
    others = logits.scatter(1, y, -torch.inf)
    lead = logits.gather(1, y).squeeze(1) - others.logsumexp(1)  # log p_y − log(1 − p_y)
    sign = -1.0 if targeted else 1.0
    slope = sign * torch.sigmoid(sign * lead)
    seed = others.softmax(1).neg_().scatter_(1, y, 1.0)
    return F.softplus(sign * lead), seed.mul_(slope.unsqueeze(1))

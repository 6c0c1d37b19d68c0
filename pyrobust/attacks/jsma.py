"""The Jacobian-based saliency map attack: a few values at a time are pushed to a bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, check_number, clean_logits, undisturbed
from pyrobust.attacks._jacobian import forward, pull_back
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._queries import offer_rows, unfinished
from pyrobust.attacks._saliency import best_pair, best_single
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_DROP_EVERY = 8


@judged_in_float32
def jsma(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l0",
    theta: float | Sequence[float] = 1.0,
    gamma: float = 0.145,
    pairs: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """While x is not of class t: x_p, x_q ← clip(x + θ) for the pair with the largest −α β among those with α > 0 > β.

    α = Σ_{i ∈ {p, q}} ∂z_t / ∂x_i and β = Σ_{i ∈ {p, q}} Σ_{j ≠ t} ∂z_j / ∂x_i; for θ < 0 their signs are exchanged.
    Values at the bound are left out. A run ends where no pair is admissible, and where another run needed no more
    changes. Without targets, the run is repeated for every class other than the label (the likeliest first), ends with
    any misclassification, and the result with the fewest changes is kept.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l0" (or 0).
        theta: θ ≠ 0, in units of the width of ``bounds``; several: each is tried, the result with the fewest changes is
            kept. (1, −1) both adds and removes, as in seed 003.
        gamma: Υ, the largest share of values that may be changed, in (0, 1]; enough for one pair (or value).
        pairs: change two values a step; False: one, by the saliency map of single values.
        targeted: reach the class ``labels``.
        bounds: (low, high) of the inputs.
        seed, sample_ids: as everywhere; nothing is random here.
        callback: called as callback(step, SearchState) with the samples of the batch that are still searched for; the
            attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the adversarial point with the fewest values changed (channels apart); the
        input itself where none was found, or where it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: per run (K − 1 classes, or one target; times the θ) at most ⌊Υ D / 2⌋ + 1 forward and twice as many backward
    passes, for ∇z_t and Σ_{j ≠ t} ∇z_j are all that matters of the Jacobian. Finished samples are dropped every 8 steps.
    The exact search for the pair takes a sort, and waits for the device once a step.
    Source: Papernot et al. 2016, algorithms 2 and 3, eq. 8–10; Υ = 14.5 % §IV-A; seed 000, §6.3.2; seed 003, §5.4.
    """
    norm_name(norm, ("l0",))
    inputs, bounds, _ = check_call(inputs, labels, bounds, 1, 1, sample_ids, seed)
    thetas = tuple(theta) if isinstance(theta, Sequence) and not isinstance(theta, str) else (theta,)
    if not thetas or not all(isinstance(t, (int, float)) and 0 < abs(t) < math.inf for t in thetas):
        raise ValueError(f"theta: expected a finite number other than 0, or several, got {theta!r}")
    check_number("gamma", gamma, 0, 1, above=True)
    values = inputs[0].numel()
    together = 2 if pairs and values > 1 else 1
    steps = int(gamma * values) // together
    if steps == 0:
        changed = "pair of values" if together == 2 else "value"
        raise ValueError(f"gamma: expected a share that allows one {changed} at least, got {gamma} of {values} values")
    width = bounds[1] - bounds[0]
    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        nearest = Nearest(inputs, is_adversarial(clean, labels, targeted))
        targets = labels.unsqueeze(1)
        if not targeted:
            others = clean.scatter(1, targets, -math.inf)
            targets = others.argsort(dim=1, descending=True, stable=True)[:, :-1]
        for target in targets.T:
            for change in thetas:
                goal = target if targeted else labels
                if _run(
                    model, inputs, goal, target, change * width, steps, together, targeted, bounds, nearest, callback
                ):
                    return nearest.adv
    return nearest.adv


def _run(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    targets: Tensor,
    change: float,
    steps: int,
    together: int,
    targeted: bool,
    bounds: Bounds,
    nearest: Nearest,
    callback: Callback | None,
) -> bool:
    """One run towards ``targets``; whether the callback stopped the attack."""
    rows = torch.arange(len(inputs), device=inputs.device)
    done = nearest.distance == 0
    x, adv = inputs, inputs.clone()
    search = best_pair if together == 2 else best_single
    for step in range(steps + 1):
        if step % _DROP_EVERY == 0:
            rows, x, adv, labels, targets, done = unfinished(done, rows, x, adv, labels, targets, done)
            if len(rows) == 0:
                return False
        logits, towards, others = _two_gradients(model, adv, targets)
        hit = is_adversarial(logits, labels, targeted)
        distance = ops.lp_norm(adv - x, "l0")
        offer_rows(nearest, rows, adv, distance, hit)
        best, best_distance = nearest.adv, nearest.distance
        if callback is not None and callback(step, SearchState(adv, hit, best[rows], best_distance[rows])):
            return True
        if step == steps:
            break
        sign = math.copysign(1.0, change)
        shut = (adv >= bounds[1] if change > 0 else adv <= bounds[0]).flatten(1)
        a = towards.mul_(sign).masked_fill_(shut, -math.inf)
        b = others.mul_(-sign).masked_fill_(shut, -math.inf)
        index, possible = search(a, b)
        done = done | hit | ~possible | (distance >= best_distance[rows])
        moves = (~done).to(adv.dtype).mul_(change).unsqueeze(1).expand(-1, together)
        adv = adv.flatten(1).scatter_add(1, index, moves).clamp_(*bounds).reshape(x.shape)
    return False


def _two_gradients(model: Model, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits, ∇z_t and Σ_{j ≠ t} ∇z_j, gradients (N, D) in float32 at least.

    Two backward passes of one graph: for two gradients they are faster than a batched one, and ask nothing of the
    model's own functions.
    """
    point, logits = forward(model, points)
    chosen = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    seeds = torch.stack([chosen, 1 - chosen])
    rows = pull_back(logits, point, seeds, batched=False, again=lambda: forward(model, points))
    towards, others = (row[0] for row in rows)
    wide = torch.promote_types(points.dtype, torch.float32)
    return logits.detach(), towards.flatten(1).to(wide), others.flatten(1).to(wide)


jsma.norms = ("l0",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

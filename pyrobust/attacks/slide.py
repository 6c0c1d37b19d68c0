"""The sparse l1 descent attack (SLIDE): projected gradient ascent in l1 that moves a share of the values at a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import Found, ascend, begin, starts
from pyrobust.attacks._common import Callback, Model, check_call, check_number, undisturbed
from pyrobust.attacks._losses import Loss, make_loss
from pyrobust.attacks._queries import uniform
from pyrobust.attacks._sparse import sparse_l1_step_


def slide(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "l1",
    steps: int = 100,
    step_size: float | None = None,
    quantile: float | tuple[float, float] = 0.99,
    random_start: bool = False,
    restarts: int = 1,
    loss: Loss = "ce",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """xₖ = Π(xₖ₋₁ + step_size · e / ‖e‖₁), eᵢ = sign(gᵢ) where |gᵢ| ≥ the ``quantile`` of |g|, else 0; g = ∇ loss.

    gᵢ counts as 0 where xᵢ is at a bound and would be pushed beyond it. Π is the exact projection onto ball ∩ bounds
    (the paper projects onto the ball and clips, which gives away part of the budget).

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the l1 ball, >= 0, in the units of the inputs.
        norm: "l1" (or 1).
        steps: of each run.
        step_size: l1 length of a step, >= 0, in the units of the inputs; default 2.5 · eps / steps.
        quantile: in [0, 1]: 0.99 moves the 1 % of largest gradients, ties included, 1 the largest alone. A pair (low,
            high) draws it uniformly for each sample and step, which then moves exactly that share.
        random_start: start uniformly in the ball, else at the input.
        restarts: runs; those after the first start at random.
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts and quantiles, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, PgdState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the last adversarial point that was seen, or the final point where there was
        none. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · (steps + 1) + 1 forward (one less without ``random_start``) and restarts · steps backward passes.
    Source: Tramèr and Boneh 2019, §4 and algorithm 1, with the mask at the bounds of its published code; seed 003,
    §2.4.1.6; projection: Croce and Hein 2021, proposition 2.1.
    """
    norm_name(norm, slide.norms)  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    eps = check_number("eps", eps, 0)
    size = 2.5 * eps / steps if step_size is None else check_number("step_size", step_size, 0)
    drawn = isinstance(quantile, Sequence)
    pair = tuple(quantile) if isinstance(quantile, Sequence) else (quantile, quantile)
    if len(pair) != 2:
        raise ValueError(f"quantile: expected a number in [0, 1] or a pair (low, high), got {quantile!r}")
    low, high = (check_number("quantile", value, 0, 1) for value in pair)
    if low > high:
        raise ValueError(f"quantile: expected a pair (low, high) with low <= high, got {quantile!r}")
    count = inputs[0].numel()

    def move(adv: Tensor, grad: Tensor, step: int) -> None:
        outwards = ((adv <= bounds[0]) & (grad < 0)) | ((adv >= bounds[1]) & (grad > 0))
        grad = grad.masked_fill(outwards, 0)
        if not drawn:
            ops.pgd_step_(adv, grad, inputs, 1, eps, size, bounds, sparsity=1 - low)
            return
        # Steps of the generator below ``restarts`` are the starts.
        share = 1 - low - (high - low) * uniform(sample_ids, 1, seed, restarts + step).squeeze(1)
        sparse_l1_step_(adv, grad, inputs, eps, share * count + 0.5, size, bounds)

    with undisturbed(model, eval_mode):
        clean, begun = begin(model, inputs, labels, from_input=not random_start)
        found = Found(inputs, labels, clean, targeted)
        points = starts(inputs, 1, eps, bounds, random_start, restarts, seed, sample_ids)
        return ascend(model, points, move, found, make_loss(loss, labels, clean, targeted), steps, callback, begun)


slide.norms = ("l1",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""The momentum iterative method: steepest ascent along a decaying sum of normalised gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS, Found, ascend, begin
from pyrobust.attacks._common import Callback, Model, check_call, check_number, rows_like, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def mim(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    loss: Loss = "ce",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """gₖ = decay · gₖ₋₁ + ∇ loss / ‖∇ loss‖₁; xₖ = Π(xₖ₋₁ + step_size · argmax {⟨v, gₖ⟩ : ‖v‖_p ≤ 1}), x₀ = inputs.

    v is the sign of gₖ for linf and gₖ / ‖gₖ‖₂ for l2, as in the paper; for l1 it is the same maximiser, the largest
    value of gₖ alone. Π projects onto ball ∩ bounds.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: how many.
        step_size: >= 0, in the units of the inputs; default eps / steps.
        decay: of the sum, >= 0; 0 is :func:`pyrobust.attacks.bim`.
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key whatever is random, which here is nothing.
        callback: called as callback(step, PgdState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the last adversarial point that was seen, or the final point where there was
        none. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: steps + 1 forward and steps backward passes.
    Source: Dong et al. 2018, algorithm 1 and §3.3; seed 003, §2.4.1.6.
    """
    p = EXPONENTS[norm_name(norm, mim.norms)]  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    eps, decay = check_number("eps", eps, 0), check_number("decay", decay, 0)
    size = eps / steps if step_size is None else check_number("step_size", step_size, 0)
    momentum = torch.zeros_like(inputs, dtype=torch.promote_types(inputs.dtype, torch.float32))

    def move(adv: Tensor, grad: Tensor, step: int) -> None:
        length = ops.lp_norm(grad, 1)
        share = rows_like(length.clamp_(min=torch.finfo(length.dtype).tiny).reciprocal_(), grad)
        momentum.mul_(decay).addcmul_(grad, share)
        ops.pgd_step_(adv, momentum.to(adv.dtype), inputs, p, eps, size, bounds)

    with undisturbed(model, eval_mode):
        clean, begun = begin(model, inputs, labels)
        found = Found(inputs, labels, clean, targeted)
        return ascend(
            model, [inputs.clone()], move, found, make_loss(loss, labels, clean, targeted), steps, callback, begun
        )


mim.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

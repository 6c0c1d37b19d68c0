"""The basic iterative method: small steps of steepest ascent from the input, projected onto the ball."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS, Found, ascend, begin
from pyrobust.attacks._common import Callback, Model, check_call, check_number, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def bim(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 10,
    step_size: float | None = None,
    loss: Loss = "ce",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x₀ = inputs; xₖ = Π(xₖ₋₁ + step_size · argmax {⟨v, ∇ loss⟩ : ‖v‖_p ≤ 1}), Π onto ball ∩ bounds.

    The original is that of linf, where the direction is the sign of the gradient; l2 and l1 take the direction of their
    own norm. What :func:`pyrobust.attacks.pgd` has beyond it are random starts.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: how many.
        step_size: >= 0, in the units of the inputs; default 1.25 · eps / steps, the paper's ratio (steps of one grey
            level, 1.25 times as many as eps has grey levels).
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
    Source: Kurakin, Goodfellow and Bengio 2017 (Adversarial examples in the physical world), §2.2; seed 003, §4.2 and
    eq. 2.15.
    """
    p = EXPONENTS[norm_name(norm, bim.norms)]  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    eps = check_number("eps", eps, 0)
    size = 1.25 * eps / steps if step_size is None else check_number("step_size", step_size, 0)

    def move(adv: Tensor, grad: Tensor, step: int) -> None:
        ops.pgd_step_(adv, grad, inputs, p, eps, size, bounds)

    with undisturbed(model, eval_mode):
        clean, begun = begin(model, inputs, labels)
        found = Found(inputs, labels, clean, targeted)
        return ascend(
            model, [inputs.clone()], move, found, make_loss(loss, labels, clean, targeted), steps, callback, begun
        )


bim.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

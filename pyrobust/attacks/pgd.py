"""Projected gradient descent: the strongest adversary within a ball, by iterated steepest ascent."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS, Found, ascend, begin, starts
from pyrobust.attacks._common import Callback, Model, check_call, check_number, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def pgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    restarts: int = 1,
    loss: Loss = "ce",
    sparsity: float = 0.0,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x₀ uniform in the ball; xₖ = Π(xₖ₋₁ + step_size · argmax {⟨v, ∇ loss⟩ : ‖v‖_p ≤ 1}), Π onto ball ∩ bounds.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of each run.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        random_start: start uniformly in the ball, else at the input.
        restarts: runs; those after the first start at random.
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
        sparsity: for l1: the share of pixels' values that each step moves (0: the largest gradient alone).
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, PgdState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the last adversarial point that was seen, or the final point where there was
        none. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: restarts · (steps + 1) + 1 forward (one less without ``random_start``) and restarts · steps backward passes.
    Source: Madry et al. 2018; seed 004, eq. 15–17; seed 003, eq. 2.15. l1: Tramèr and Boneh 2019 (SLIDE), with the
    exact projection onto ball ∩ bounds of Croce and Hein 2021.
    """
    p = EXPONENTS[norm_name(norm, pgd.norms)]  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, restarts, sample_ids, seed)
    eps = check_number("eps", eps, 0)
    size = 2.5 * eps / steps if step_size is None else check_number("step_size", step_size, 0)

    def move(adv: Tensor, grad: Tensor, step: int) -> None:
        ops.pgd_step_(adv, grad, inputs, p, eps, size, bounds, sparsity)

    with undisturbed(model, eval_mode):
        clean, begun = begin(model, inputs, labels, from_input=not random_start)
        found = Found(inputs, labels, clean, targeted)
        points = starts(inputs, p, eps, bounds, random_start, restarts, seed, sample_ids)
        return ascend(model, points, move, found, make_loss(loss, labels, clean, targeted), steps, callback, begun)


pgd.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""The clipped fast gradient method: the l2-normalised gradient, magnified, and clipped to the linf ball."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import Found, ascend, begin
from pyrobust.attacks._common import Callback, Model, check_call, check_number, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def fgm_clipped(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    scale: float = 100.0,
    loss: Loss = "ce",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """adv = box(inputs + clip(scale · width · g / ‖g‖₂, ±eps)), g the gradient of the loss, width that of ``bounds``.

    Values with small gradients move less than eps, so the perturbation is shorter in l2 than that of the sign of the
    gradient and shows what the model looks at; as scale grows it becomes :func:`pyrobust.attacks.fgm` in linf.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the linf ball, >= 0, in the units of the inputs.
        norm: "linf" (or inf), the norm of the budget.
        scale: l2 length before clipping, >= 0, in units of the width of ``bounds``.
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key whatever is random, which here is nothing.
        callback: called as callback(step, PgdState) at the input (step 0) and at the result (1); the attack stops when
            it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: two forward passes and one backward pass.
    Source: seed 000, §3 ("we adapt the Fast grad L₂ method"), after Kurakin et al. 2017, appendix A.
    """
    norm_name(norm, fgm_clipped.norms)  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, 1, 1, sample_ids, seed)
    eps = check_number("eps", eps, 0)
    length = check_number("scale", scale, 0) * (bounds[1] - bounds[0])

    def move(adv: Tensor, grad: Tensor, step: int) -> None:
        adv.add_(ops.dual_normalize(grad, 2).mul_(length).clamp_(-eps, eps)).clamp_(*bounds)

    with undisturbed(model, eval_mode):
        clean, begun = begin(model, inputs, labels)
        found = Found(inputs, labels, clean, targeted)
        return ascend(
            model, [inputs.clone()], move, found, make_loss(loss, labels, clean, targeted), 1, callback, begun
        )


fgm_clipped.norms = ("linf",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

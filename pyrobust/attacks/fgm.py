"""The fast gradient method: one step of steepest ascent."""

from __future__ import annotations

from torch import Tensor

from pyrobust._checks import Bounds, Norm
from pyrobust.attacks._common import Callback, Model
from pyrobust.attacks._losses import Loss
from pyrobust.attacks.pgd import pgd


def fgm(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    loss: Loss = "ce",
    sparsity: float = 0.0,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """adv = Π(inputs + eps · v), v the dual direction of the loss gradient: its sign for linf, the unit gradient for
    l2.

    :func:`pyrobust.attacks.pgd` with one step of length eps from the input itself.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.
        sparsity: for l1: the share of pixels' values that the step moves (0: the largest gradient alone).
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: of the common signature; nothing here is random.
        callback: called as callback(step, PgdState).
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: the point after the step. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: two forward passes and one backward pass.
    Source: Goodfellow et al. 2015; seed 003, eq. 2.16–2.17; seed 002, §4.1 for l1 and l2.
    """
    return pgd(
        model, inputs, labels, eps=eps, norm=norm, steps=1, step_size=eps, random_start=False, loss=loss, sparsity=sparsity,
        targeted=targeted, bounds=bounds, seed=seed, sample_ids=sample_ids, callback=callback, eval_mode=eval_mode,
    )  # fmt: skip


fgm.norms = ("l1", "l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""What counts as an adversarial example, decided from the points alone and never from what an attack reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrobust._checks import NORMS, Bounds, check_logits


@dataclass(frozen=True)
class Verdict:
    """Per-sample findings, each a tensor of shape (N,).

    Attributes:
        finite: every value of the point, and every logit, is finite.
        in_bounds: every value lies inside the box.
        within_budget: the norm is at most eps, up to rounding; true where the attack has no budget.
        adversarial: all of the above hold and the prediction is what the attack was after.
        norms: float64 norm of the perturbation by name; NaN where the point is not finite.
    """

    finite: Tensor
    in_bounds: Tensor
    within_budget: Tensor
    adversarial: Tensor
    norms: dict[str, Tensor]


@torch.no_grad()
def predict(model: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and predicted classes (N,), without the caller's autocast; a row with a NaN or infinite logit predicts no
    class: −1."""
    with torch.autocast(inputs.device.type, enabled=False):
        logits = model(inputs)
    check_logits(logits, len(inputs))
    finite = logits.isfinite().all(dim=1)
    return logits, logits.argmax(dim=1).where(finite, -1)


def perturbation_norms(inputs: Tensor, adversarials: Tensor) -> dict[str, Tensor]:
    """l0, l1, l2 and linf norm of ``adversarials − inputs`` in float64, each of shape (N,).

    For images (N, C, H, W) l0 counts pixels, that is positions where any channel differs; otherwise it counts
    values. The difference of two float32 values is exact in float64 unless they are 2²⁹ or more times apart.
    """
    delta = adversarials.cpu().double() - inputs.cpu().double()
    rows = delta.flatten(1)
    changed = (delta != 0).any(dim=1) if delta.ndim == 4 else delta != 0
    finite = rows.isfinite().all(dim=1)
    norms = {
        "l0": changed.flatten(1).sum(dim=1).double(),
        "l1": rows.abs().sum(dim=1),
        "l2": rows.square().sum(dim=1).sqrt(),
        "linf": rows.abs().amax(dim=1),
    }
    return {name: norms[name].where(finite, math.nan) for name in NORMS}


def budget_tolerance(inputs: Tensor, adversarials: Tensor, norm: str, eps: float) -> Tensor:
    """How far rounding alone can carry a point over its budget; float64 of shape (N,).

    With u the machine epsilon of the inputs' dtype (at most float32's, in which norms are accumulated) and D values
    a sample, storing x + r rounds each value by at most u·|x + r|/2, clipping and storing r itself as much again:
    together u·(‖x‖ + ‖x + r‖) in the same norm. The scaling to eps carries the relative error of a pairwise sum and
    of a few operations, (4 + log₂ D)·u. Counting is exact, so l0 has no tolerance.
    """
    if norm == "l0":
        return torch.zeros(len(inputs), dtype=torch.float64)
    unit = max(torch.finfo(inputs.dtype).eps, torch.finfo(torch.float32).eps)
    zero = torch.zeros((), dtype=inputs.dtype, device=inputs.device)
    sizes = perturbation_norms(zero, inputs)[norm] + perturbation_norms(zero, adversarials)[norm]
    return unit * (sizes + (4 + math.log2(max(inputs[0].numel(), 1))) * eps)


def verify(
    inputs: Tensor,
    adversarials: Tensor,
    labels: Tensor,
    predictions: Tensor,
    *,
    norm: str,
    bounds: Bounds,
    eps: float | None = None,
    targeted: bool = False,
) -> Verdict:
    """Judge each point by what can be recomputed.

    Args:
        inputs: (N, …), the clean samples.
        adversarials: (N, …), the points that an attack returned for them.
        labels: (N,) true classes, or targets.
        predictions: (N,) the model's classes of ``adversarials``; −1 where it gave none.
        norm: the norm that ``eps`` is meant in.
        bounds: the box; compared in the dtype of the points.
        eps: the budget, or None.
        targeted: ``labels`` are targets.

    Returns:
        A `Verdict` on the CPU.
    """
    low, high = (torch.tensor(b, dtype=inputs.dtype, device=inputs.device) for b in bounds)
    rows = adversarials.flatten(1)
    finite = (rows.isfinite().all(dim=1) & (predictions >= 0)).cpu()
    in_bounds = ((rows >= low) & (rows <= high)).all(dim=1).cpu()
    norms = perturbation_norms(inputs, adversarials)
    if eps is None:
        within_budget = torch.ones_like(finite)
    else:
        within_budget = norms[norm] <= eps + budget_tolerance(inputs, adversarials, norm, eps)
    hit = (predictions == labels if targeted else predictions != labels).cpu()
    return Verdict(finite, in_bounds, within_budget, finite & in_bounds & within_budget & hit, norms)

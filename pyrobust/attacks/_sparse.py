"""The l1 step of a share of the values that is each sample's own."""

from __future__ import annotations

from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds


def sparse_l1_step_(
    adv: Tensor,
    grad: Tensor,
    inputs: Tensor,
    eps: float | Tensor,
    keep: Tensor,
    step_size: float | Tensor,
    bounds: Bounds,
) -> None:
    """adv ← Π(adv + step_size · e / ‖e‖₁) in place: e the signs of the ``keep`` (N,) largest gradients, at least one;
    Π the projection onto {‖adv − inputs‖₁ ≤ eps} ∩ bounds."""
    largest = ops.project_l0_ball(grad, keep.clamp(min=1), grouping="value")
    ops.pgd_step_(adv, largest, inputs, 1, eps, step_size, bounds, sparsity=1.0)  # every gradient that is left

"""Regularisation by the Frobenius norm of the logits' Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.attacks._common import check_count
from pyrobust.training._ascent import noise
from pyrobust.training._derivatives import jacobian_rows, pull_back, tracked_logits
from pyrobust.training.term import Batch, Term


class JacobianFrobenius(Term):
    """½ ‖J(x)‖_F², J the Jacobian of the logits: half the sum of the squares of all its singular values.

    Exactly, ‖J‖_F² = Σ_k ‖∇ₓz_k‖₂², or by the unbiased estimate K / m · Σ_i ‖Jᵀu_i‖₂² over m unit vectors u_i, uniform on the
    sphere and independent, drawn for each sample and step.

    Args:
        projections: m, at least 1; None: exactly.

    Raises:
        ValueError: naming the argument.

    Cost: K (exactly) or m backward passes that are differentiated once more, besides the clean forward pass.
    Source: Hoffman et al. 2019, algorithm 1; Rifai et al. 2011 for the contractive penalty; seed 004, §4.3.
    """

    needs_input_grad = True

    def __init__(self, projections: int | None = None) -> None:
        super().__init__()
        if projections is not None:
            check_count(projections=projections)
        self.projections = projections

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = tracked_logits(model, batch)
        if self.projections is None:
            rows, scale = jacobian_rows(logits, batch), 1.0
        else:
            rows = (pull_back(logits, batch, u) for u in self._units(logits.detach(), batch))
            scale = logits.shape[1] / self.projections
        total = torch.stack([row.square().sum() for row in rows]).sum()
        return 0.5 * scale * total / len(logits)

    def _units(self, logits: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """m tensors (N, K) of unit rows. A direction uniform in R^{mK} has parts with independent uniform directions."""
        assert self.projections is not None
        parts = noise(batch, logits.repeat(1, self.projections), 2.0, 1.0, "Jacobian")
        units = ops.dual_normalize_(parts.reshape(-1, logits.shape[1]), 2.0)
        return units.view(len(logits), self.projections, -1).unbind(1)

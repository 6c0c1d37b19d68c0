"""Margin maximisation: the hinge loss, and how fast the margin can fall as the input moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count
from pyrobust.attacks._jacobian import pull_back
from pyrobust.attacks._losses import margin
from pyrobust.training._derivatives import tracked_logits
from pyrobust.training._losses import wide
from pyrobust.training.operator_norm import CONJUGATES
from pyrobust.training.term import Batch, Term


class Hinge(Term):
    """max_{j ≠ y} (1 + z_j − z_y)₊, the multiclass hinge loss; with two classes (1 − y f)₊, f = z₁ − z₀ and y = ±1.

    Cost: the clean forward pass and one backward pass.
    Source: seed 003, eq. 3.14 and 3.18 (corrected).
    """

    classifies = True

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return (1 + margin(wide(batch.logits(model)), batch.labels)).relu().mean()


class MarginSensitivity(Term):
    """max_{j ≠ y} ‖∇ₓz_y − ∇ₓz_j‖_q, 1/p + 1/q = 1: how fast the margin can fall along an lp perturbation.

    Beside :class:`Hinge` with weight C this is margin maximisation; the cross-entropy may take the hinge's place, where that
    is unstable. With two classes it is ‖∇ₓf‖_q, f = z₁ − z₀.

    Args:
        norm: of the perturbation: "linf" (the seed's "l1 margin"), "l2" or "l1" (or inf, 2, 1).
        top_k: how many of the likeliest classes j are compared; default all.
        squared: the mean of the squares instead, as the authors' published code has it for l2.

    Raises:
        ValueError: naming the argument.

    Cost: besides the clean forward pass k = min(top_k, K − 1) gradients at the inputs to find the largest (none for k = 1),
        one with a graph, and the backward pass through both passes that it adds. The others need no graph: the derivative
        of a maximum is that of its largest part.
    Source: seed 003, eq. 3.14 and 3.18 (corrected), theorems 3.4.1 and 3.4.2; NIN on CIFAR-10 with the cross-entropy: §3.5.2.
    """

    needs_input_grad = True

    def __init__(self, norm: Norm = "l2", top_k: int | None = None, squared: bool = False) -> None:
        super().__init__()
        self.dual = CONJUGATES[EXPONENTS[norm_name(norm, tuple(EXPONENTS))]]
        if top_k is not None:
            check_count(top_k=top_k)
        self.top_k, self.squared = top_k, squared

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits, labels = tracked_logits(model, batch), batch.labels.unsqueeze(1)
        count = logits.shape[1] - 1
        others = logits.detach().scatter(1, labels, -torch.inf).topk(min(self.top_k or count, count), 1).indices
        seeds = logits.new_zeros(others.shape[1], *logits.shape)  # rows that pull back to ∇z_j − ∇z_y
        seeds.scatter_(2, others.T.unsqueeze(2), 1.0).scatter_(2, labels.expand(len(seeds), -1, -1), -1.0)
        if len(seeds) == 1:
            steepest = seeds[0]
        else:
            slopes = torch.cat([self._slopes(rows) for rows in pull_back(logits, batch.inputs, seeds, keep=True)])
            steepest = seeds[slopes.argmax(0), torch.arange(len(labels), device=labels.device)]
        (normal,) = torch.autograd.grad(logits, batch.inputs, steepest, create_graph=True)
        slope = ops.lp_norm(normal, self.dual)
        return (slope.square() if self.squared else slope).mean()

    def _slopes(self, rows: Tensor) -> Tensor:
        """The norms (c, N) of gradients (c, N, …)."""
        return ops.lp_norm(rows.flatten(0, 1), self.dual).reshape(rows.shape[:2])

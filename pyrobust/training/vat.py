"""Virtual adversarial training: local smoothness along the direction in which the prediction bends most."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count, check_number, check_positive, logits_and_grad, undisturbed
from pyrobust.training._ascent import evaluated, noise
from pyrobust.training._losses import divergence, log_softmax, wide
from pyrobust.training.term import Batch, Term


class VirtualAdversarial(Term):
    """KL(p(x) ‖ p(x + eps · d)) with p(x) held constant, d from power iteration on the Hessian H of the divergence at x.

    d ← argmax {⟨v, H d⟩ : ‖v‖_p ≤ 1}, H d ≈ ∇_r KL(p(x) ‖ p(x + r)) / xi at r = xi · d; the first d has independent uniform
    values and a length near 1. No labels are used. x + eps · d is not cut off at the bounds.

    Args:
        eps: length of the perturbation, >= 0, in the units of the inputs.
        norm: of the perturbation: "l2" as in the paper, "linf" or "l1" (or 2, inf, 1).
        steps: of the power iteration, at least 1.
        xi: length of the finite difference in that norm, > 0, in the units of the inputs. (The paper's 1e-6 drowns in the
            rounding of float32.)
        eval_mode: run the model in evaluation mode inside the power iteration.

    Raises:
        ValueError: naming the argument.

    Cost: steps + 2 forward passes (one without a graph) and steps + 1 backward passes, besides the clean ones that other
        terms share.
    Source: Miyato et al. 2018, eq. 5–12 and algorithm 1; seed 003, eq. 2.23–2.24.
    """

    def __init__(self, eps: float, norm: Norm = "l2", steps: int = 1, xi: float = 0.01, eval_mode: bool = True) -> None:
        super().__init__()
        self.p = EXPONENTS[norm_name(norm, tuple(EXPONENTS))]
        self.eps = check_number("eps", eps, 0)
        check_count(steps=steps)
        check_positive(xi=xi)
        self.steps, self.xi, self.eval_mode = steps, float(xi), eval_mode

    def direction(self, model: nn.Module, batch: Batch) -> Tensor:
        """d, like the inputs."""
        inputs = batch.inputs.detach()

        def slope(logits: Tensor) -> Tensor:
            """Of the divergence with respect to the logits. The largest part follows from the others: its own difference
            would be lost in rounding where the model is certain."""
            change = wide(logits).softmax(1) - fixed
            top = fixed.argmax(1, keepdim=True)
            return change.scatter_(1, top, 0.0).scatter_(1, top, -change.sum(1, keepdim=True))

        size = inputs[0].numel()
        near_one = 1.0 if self.p == math.inf else ((self.p + 1) / size) ** (1 / self.p)
        direction = noise(batch, inputs, math.inf, near_one, "vat")
        # Autocast off: half precision rounds inputs by more than a difference of length xi changes them.
        with undisturbed(model, self.eval_mode), torch.autocast(inputs.device.type, enabled=False):
            fixed = evaluated(model, inputs, self.eval_mode).softmax(1)
            for _ in range(self.steps):
                _, grad = logits_and_grad(model, torch.add(inputs, direction, alpha=self.xi), slope)
                direction = ops.dual_normalize_(grad, self.p)
        return direction

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        point = torch.add(batch.inputs.detach(), self.direction(model, batch), alpha=self.eps)
        fixed = log_softmax(batch.logits(model).detach())
        return divergence(fixed, log_softmax(model(point))) / len(point)

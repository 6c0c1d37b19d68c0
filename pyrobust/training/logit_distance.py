"""The change of the logits under the worst perturbation in a ball."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count, check_number, undisturbed
from pyrobust.training._ascent import around, evaluated
from pyrobust.training._derivatives import check_power, mean_power
from pyrobust.training._losses import wide
from pyrobust.training.operator_norm import CONJUGATES
from pyrobust.training.term import Batch, Term


class LogitDistance(Term):
    """max {‖f(x + r) − f(x)‖_q : ‖r‖_p ≤ eps} or half its square: adversarial training with an l_q loss on the logits.

    The maximum is approached by projected gradient ascent from a random start: in every step v = dual_p(Jᵀ dual_q*(f(x̂) −
    f(x))), x̂ ← Π(x̂ + step_size v). Within one linear piece of the network, and with step_size inf, x̂ − x = eps v with the v
    of the power iteration of :class:`OperatorNorm`, and the value is eps ‖J‖_{p,q} (seed 004, theorem 1).

    Args:
        eps: radius of the ball, > 0, in the units of the inputs.
        norm: p, of the perturbation: "linf", "l2" or "l1" (or inf, 2, 1).
        logit_norm: q, of the logits' change, likewise.
        steps: of the ascent, at least 1.
        step_size: α in the units of the inputs; default 2.5 · eps / steps; inf: x̂ ← Π(x + eps v), the limit α → ∞.
        power: 1 for the distance itself, 2 for half its square.
        eval_mode: run the model in evaluation mode inside the ascent.

    Raises:
        ValueError: naming the argument.

    Cost: steps + 2 forward passes (one without a graph) and steps + 1 backward passes, besides the clean ones that other
        terms share.
    Source: seed 004, eq. 14 and 17–18 with the loss of theorem 1.
    """

    def __init__(
        self,
        eps: float,
        norm: Norm = "l2",
        logit_norm: Norm = "l2",
        steps: int = 10,
        step_size: float | None = None,
        power: int = 1,
        eval_mode: bool = True,
    ) -> None:
        super().__init__()
        self.p = EXPONENTS[norm_name(norm, tuple(EXPONENTS))]
        self.q = EXPONENTS[norm_name(logit_norm, tuple(EXPONENTS))]
        self.eps = check_number("eps", eps, 0, above=True)
        check_count(steps=steps)
        self.steps = steps
        self.step_size = 2.5 * eps / steps if step_size is None else step_size
        if step_size != math.inf:
            check_number("step_size", self.step_size, 0)
        self.power, self.eval_mode = check_power(power), eval_mode

    def ascend(self, model: nn.Module, batch: Batch, adv: Tensor) -> Tensor:
        """``adv``, replaced by the last point of the ascent from there."""
        inputs = batch.inputs.detach().contiguous()
        clean = evaluated(model, inputs, self.eval_mode)
        with undisturbed(model, self.eval_mode):
            for _ in range(self.steps):
                point = adv.detach().requires_grad_()
                with torch.enable_grad():
                    logits = model(point)
                u = ops.dual_normalize_(wide(logits.detach()) - clean, CONJUGATES[self.q])
                (grad,) = torch.autograd.grad(logits, point, u.to(logits.dtype))
                if self.step_size == math.inf:
                    ops.pgd_step_(adv.copy_(inputs), grad, inputs, self.p, self.eps, self.eps, batch.bounds)
                else:
                    ops.pgd_step_(adv, grad, inputs, self.p, self.eps, self.step_size, batch.bounds)
        return adv

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        adv = self.ascend(model, batch, around(batch, self.p, self.eps, "logit distance"))
        return mean_power(ops.lp_norm(wide(model(adv)) - wide(batch.logits(model)), self.q), self.power)

"""Input-gradient regularisation, by double backpropagation."""

from __future__ import annotations

from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.training._derivatives import check_power, mean_power, pull_back, tracked_logits
from pyrobust.training._losses import summed_cross_entropy
from pyrobust.training.operator_norm import CONJUGATES
from pyrobust.training.term import Batch, Term


class InputGradient(Term):
    """‖∇ₓCE(x)‖ or ½ ‖∇ₓCE(x)‖², in the norm that is dual to that of the perturbation: l1 for linf, l2, linf for l1.

    eps · ‖∇ₓCE‖ is how much the loss grows, to first order, within the ball of radius eps.

    Args:
        norm: of the perturbation: "linf", "l2" or "l1" (or inf, 2, 1).
        power: 1 for the norm itself, 2 for half its square.

    Raises:
        ValueError: naming the argument.

    Cost: a backward pass that is differentiated once more (about two more passes), besides the clean forward and backward
        pass that other terms share.
    Source: "l2", power 2: Drucker and LeCun 1992 (double backpropagation); Ross and Doshi-Velez 2018, whose λ is half the
        weight here. power 1: Lyu et al. 2015, the family of dual norms. Seed 004, §2.
    """

    needs_input_grad = True

    def __init__(self, norm: Norm = "l2", power: int = 2) -> None:
        super().__init__()
        self.dual = CONJUGATES[EXPONENTS[norm_name(norm, tuple(EXPONENTS))]]
        self.power = check_power(power)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = summed_cross_entropy(tracked_logits(model, batch), batch.labels)
        return mean_power(ops.lp_norm(pull_back(loss, batch), self.dual), self.power)

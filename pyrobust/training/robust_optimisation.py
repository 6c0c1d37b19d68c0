"""Robust optimisation: every update on the worst case of a linear model of the loss."""

from __future__ import annotations

from torch import Tensor, nn

from pyrobust._checks import Norm
from pyrobust.training._ascent import Ascent
from pyrobust.training._losses import cross_entropy, summed_cross_entropy
from pyrobust.training.term import Batch, Term


class RobustOptimisation(Term):
    """CE(x + Δ), Δ = argmax {⟨∇ₓCE(x), Δ⟩ : ‖Δ‖_p ≤ eps}: one step of steepest ascent; never the loss at x itself.

    linf moves every value by eps, l2 along the gradient, l1 the value of the largest gradient alone (those that tie share).
    The step is then cut off at the bounds; what is cut off is not spent elsewhere.

    Args:
        eps: radius r of the uncertainty set, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        eval_mode: run the model in evaluation mode for the step.

    Raises:
        ValueError: naming the argument.

    Cost: two forward and two backward passes.
    Source: seed 002, algorithm 1, eq. 9–11 and §4.1.
    """

    classifies = True

    def __init__(self, eps: float, norm: Norm = "linf", eval_mode: bool = True) -> None:
        super().__init__()
        self.ascent = Ascent(eps, norm, 1, eps, eval_mode)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        adv = self.ascent(model, batch, lambda z: summed_cross_entropy(z, batch.labels), batch.inputs.detach().clone())
        return cross_entropy(model(adv), batch.labels)

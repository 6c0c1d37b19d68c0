"""TRADES: predictions that stay what they are at the clean input."""

from __future__ import annotations

import math

from torch import Tensor, nn

from pyrobust._checks import Norm
from pyrobust.training._ascent import Ascent, around, evaluated
from pyrobust.training._losses import divergence, log_softmax
from pyrobust.training.term import Batch, Term

_SPREAD = 0.001  # standard deviation of the first step away from the input, where the divergence has no slope


class Trades(Term):
    """KL(p(x) ‖ p(x̂)), x̂ the last point of an ascent of that divergence in the ball around x; p the softmax of the model.

    Beside the cross-entropy with weight β = 1/λ (6, or 1, in the paper) this is TRADES. The start differs from x by
    independent uniform values of standard deviation 0.001, that of the authors' Gaussian.

    Args:
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of the ascent, at least 1.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        eval_mode: run the model in evaluation mode inside the ascent.

    Raises:
        ValueError: naming the argument.

    Cost: steps + 2 forward passes (one without a graph) and steps + 1 backward passes, besides the clean ones that other
        terms share.
    Source: Zhang et al. 2019, eq. 5 and algorithm 1; seed 003, §2.5.1. The authors' code runs another attack for l2; here it
        is steepest ascent too.
    """

    def __init__(
        self,
        eps: float,
        norm: Norm = "linf",
        steps: int = 10,
        step_size: float | None = None,
        eval_mode: bool = True,
    ) -> None:
        super().__init__()
        self.ascent = Ascent(eps, norm, steps, step_size, eval_mode)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        # The ascent compares evaluation mode with itself: the clean logits of the loss are those of training mode.
        fixed = log_softmax(evaluated(model, batch.inputs, self.ascent.eval_mode))
        size = batch.inputs[0].numel()
        start = around(
            batch, 2.0, _SPREAD * math.sqrt(size + 2), "trades"
        )  # variance of a coordinate: radius² / (D + 2)
        adv = self.ascent(model, batch, lambda logits: divergence(fixed, log_softmax(logits)), start)
        return divergence(log_softmax(batch.logits(model)), log_softmax(model(adv))) / len(adv)

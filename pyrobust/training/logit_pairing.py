"""Logit pairing and squeezing: logits that are alike, or small."""

from __future__ import annotations

from torch import Tensor, nn

from pyrobust._checks import Norm
from pyrobust.attacks._common import check_number
from pyrobust.training._ascent import Ascent
from pyrobust.training._losses import cross_entropy, summed_cross_entropy, wide
from pyrobust.training.term import Batch, Term


class AdversarialLogitPairing(Term):
    """(CE(x) + CE(x̂)) / 2 + weight · mean (z(x) − z(x̂))² over samples and classes; x̂ as in adversarial training.

    Args:
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: of the ascent, at least 1.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        weight: λ >= 0 of the pairing; 0 leaves mixed-batch adversarial training.
        eval_mode: run the model in evaluation mode inside the ascent.

    Raises:
        ValueError: naming the argument.

    Cost: steps + 2 forward and backward passes.
    Source: Kannan et al. 2018, §3.1 and eq. 2–3, the squared loss as their published code scales it; seed 000, §5.2.
    """

    classifies = True

    def __init__(
        self,
        eps: float,
        norm: Norm = "linf",
        steps: int = 7,
        step_size: float | None = None,
        weight: float = 0.5,
        eval_mode: bool = True,
    ) -> None:
        super().__init__()
        self.ascent = Ascent(eps, norm, steps, step_size, eval_mode)
        self.weight = check_number("weight", weight, 0)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        start = self.ascent.anywhere(batch)
        adv = self.ascent(model, batch, lambda logits: summed_cross_entropy(logits, batch.labels), start)
        clean, moved = wide(batch.logits(model)), wide(model(adv))
        loss = (cross_entropy(clean, batch.labels) + cross_entropy(moved, batch.labels)) / 2
        return loss + self.weight * (clean - moved).square().mean()


class CleanLogitPairing(Term):
    """mean (z(x_i) − z(x_{i+1}))² over samples and classes: each sample with the next of the batch, the last with the first.

    The batch is in random order, so the pairs are random, of any two classes. The paper's Gaussian noise on the inputs is
    left to the augmentation of the data.

    Cost: the clean forward pass and one backward pass.
    Source: Kannan et al. 2018, §3.2, each sample in two pairs rather than one; seed 000, §5.2.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = wide(batch.logits(model))
        return (logits - logits.roll(1, 0)).square().mean()


class LogitSqueezing(Term):
    """mean ‖z(x)‖₂: a penalty on the size of the logits.

    The paper's Gaussian noise on the inputs is left to the augmentation of the data.

    Cost: the clean forward pass and one backward pass.
    Source: Kannan et al. 2018, §3.2; seed 000, §5.2.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return wide(batch.logits(model)).norm(dim=1).mean()

"""Label smoothing and the confidence penalty: losses that keep predictions from certainty."""

from __future__ import annotations

from torch import Tensor, nn

from pyrobust.attacks._common import check_number
from pyrobust.training._losses import cross_entropy, log_softmax
from pyrobust.training.term import Batch, Term


class LabelSmoothing(Term):
    """−Σ_k q_k log p_k with q = (1 − smoothing) · one-hot(y) + smoothing / K.

    Args:
        smoothing: in [0, 1].

    Raises:
        ValueError: naming the argument.

    Cost: the clean forward pass and one backward pass.
    Source: Szegedy et al. 2016, §7; seed 000, §5.2.
    """

    classifies = True

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = check_number("smoothing", smoothing, 0, 1)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(batch.logits(model), batch.labels, self.smoothing)


class ConfidencePenalty(Term):
    """−H(p(x)) = Σ_k p_k log p_k: the negative entropy of the prediction, in [−log K, 0].

    Cost: the clean forward pass and one backward pass.
    Source: Pereyra et al. 2017, §3; seed 000, §5.2.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        log_p = log_softmax(batch.logits(model))
        return (log_p.exp() * log_p).sum(1).mean()

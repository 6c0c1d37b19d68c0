"""DisturbLabel: a few wrong labels in every batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrobust.attacks._common import check_number
from pyrobust.training._ascent import uniform
from pyrobust.training._losses import cross_entropy
from pyrobust.training.term import Batch, Term


class DisturbLabel(Term):
    """CE(x, ỹ): ỹ uniform over all K classes with probability ``rate``, else y; drawn anew for each sample and step.

    Args:
        rate: α in [0, 1], the share of labels drawn anew. One in K of those is drawn right.

    Raises:
        ValueError: naming the argument.

    Cost: the clean forward pass and one backward pass.
    Source: Xie et al. 2016, eq. 3 and algorithm 1; seed 000, §5.2.
    """

    classifies = True

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.rate = check_number("rate", rate, 0, 1)

    def labels(self, batch: Batch, classes: int) -> Tensor:
        """ỹ, int64 (N,)."""
        chance, place = uniform(batch, 2, "disturb_label").unbind(1)
        drawn = (classes * place).long().clamp_(max=classes - 1)
        return torch.where(chance < self.rate, drawn, batch.labels)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = batch.logits(model)
        return cross_entropy(logits, self.labels(batch, logits.shape[1]))

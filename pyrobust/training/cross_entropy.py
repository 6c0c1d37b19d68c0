"""The loss of plain training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.training.term import Batch, Term


class CrossEntropy(Term):
    """mean over the batch of −log softmax(z(x))_y, at the clean inputs, in float32 at least.

    Cost: the clean forward pass and one backward pass.
    """

    classifies = True

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = batch.logits(model)
        return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), batch.labels)

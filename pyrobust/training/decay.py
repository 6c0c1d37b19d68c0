"""Weight decay as a term of the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyrobust.training.term import Batch, Term


class L2Decay(Term):
    """½ Σ w² over all weights: the parameters that train and have two dimensions or more, so no bias and no scale.

    Cost: one pass over the weights, and one in the backward pass.
    Source: seed 000, §4 and eq. 8 (corrected); seed 001, the weight decay of its networks.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.stack([torch.linalg.vector_norm(weight).square() for weight in _weights(model)]).sum() / 2


class L1Decay(Term):
    """Σ |w| over all weights: the parameters that train and have two dimensions or more, so no bias and no scale.

    Cost: one pass over the weights, and one in the backward pass.
    Source: seed 000, §4 and eq. 8 (corrected), there the mean: divide the weight by their number.
    """

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.stack([torch.linalg.vector_norm(weight, 1) for weight in _weights(model)]).sum()


def _weights(model: nn.Module) -> Iterator[Tensor]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1)

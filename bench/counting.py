"""What an attack spends, counted sample by sample from outside."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Counted(nn.Module):
    """Counts predictions and gradients of a model, one each a sample.

    Attributes:
        forwards: samples that the model was called with.
        gradients: vector-Jacobian products: one backward pass of N samples is N, a batched one of k rows of seeds k·N.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.gradients = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.forwards += len(inputs)
        logits: Tensor = self.model(inputs)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, grad: Tensor) -> None:
        if torch._C._functorch.is_legacy_batchedtensor(grad):  # of autograd.grad(…, is_grads_batched=True)
            grad = torch._remove_batch_dim(grad, 1, 1, 0)
            self.gradients += grad.shape[0] * grad.shape[1]
        else:
            self.gradients += len(grad)

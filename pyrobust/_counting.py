"""What an attack asks of the model, counted from outside: predictions and gradients, each of one sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrobust._checks import Model


@dataclass
class Spent:
    """Counts of what was asked of a model.

    Attributes:
        forwards: predictions.
        gradients: vector-Jacobian products; a backward pass of N samples is N, a batched one of k seeds each k · N.
    """

    forwards: int = 0
    gradients: int = 0


@contextmanager
def counted(model: Model, spent: Spent | None = None) -> Iterator[tuple[Model, Spent]]:
    """The model to hand on, and what is spent on it meanwhile. Counts shapes alone, so it waits for no device.

    A module stays the object that it is, since attacks look into it: it is watched by a hook.

    Args:
        spent: counts to add to; default: new ones.
    """
    spent = Spent() if spent is None else spent

    def of_gradient(grad: Tensor) -> None:
        if torch._C._functorch.is_legacy_batchedtensor(grad):  # of autograd.grad(…, is_grads_batched=True)
            grad = torch._remove_batch_dim(grad, 1, 1, 0).flatten(0, 1)
        spent.gradients += len(grad)

    def of_logits(logits: object) -> None:
        if isinstance(logits, Tensor) and logits.ndim > 0:
            spent.forwards += len(logits)
            if logits.requires_grad:
                logits.register_hook(of_gradient)

    if isinstance(model, nn.Module):
        handle = model.register_forward_hook(lambda module, inputs, logits: of_logits(logits))
        try:
            yield model, spent
        finally:
            handle.remove()
    else:

        def watched(inputs: Tensor) -> Tensor:
            logits = model(inputs)
            of_logits(logits)
            return logits

        yield watched, spent

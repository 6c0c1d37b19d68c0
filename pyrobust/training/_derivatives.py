"""Derivatives of the clean logits with respect to the inputs, with a graph to the parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.training._losses import wide
from pyrobust.training.term import Batch


def tracked_logits(model: nn.Module, batch: Batch) -> Tensor:
    """``batch.logits(model)``, once it is sure that they were computed from inputs that require their gradient.

    Raises:
        ValueError: they were not: :class:`Objective` sees to it, a term called alone does not.
    """
    if not batch.inputs.requires_grad:
        raise ValueError(
            "batch.inputs: expected a tensor that requires its gradient, before its logits are first asked for"
        )
    return batch.logits(model)


def pull_back(output: Tensor, batch: Batch, weights: Tensor | None = None) -> Tensor:
    """∇ₓ⟨weights, output⟩, differentiable once more; like ``batch.inputs``, in float32 at least."""
    (grad,) = torch.autograd.grad(output, batch.inputs, weights, create_graph=True)
    return wide(grad)


def jacobian_rows(logits: Tensor, batch: Batch) -> Iterator[Tensor]:
    """∇ₓz_k for each class k, one backward pass each."""
    for seed in F.one_hot(torch.arange(logits.shape[1], device=logits.device), logits.shape[1]).to(logits.dtype):
        yield pull_back(logits, batch, seed.expand_as(logits))


def check_power(power: int) -> int:
    """``power``; raise ValueError unless it is 1 or 2."""
    if isinstance(power, bool) or power not in (1, 2):
        raise ValueError(f"power: expected 1 or 2, got {power!r}")
    return power


def mean_power(values: Tensor, power: int) -> Tensor:
    """The mean of valueᵖᵒʷᵉʳ / power over the samples."""
    return (values if power == 1 else 0.5 * values.square()).mean()

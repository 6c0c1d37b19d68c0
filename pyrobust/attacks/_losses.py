"""Losses that budget attacks ascend: a value for each sample, from logits and labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = str | Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(z)_y."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{i ≠ y} z_i − z_y: above 0 iff misclassified (Carlini and Wagner 2017; seed 003, eq. 5.2, negated)."""
    y = labels.unsqueeze(1)
    return logits.scatter(1, y, -torch.inf).amax(1) - logits.gather(1, y).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: (max_{i ≠ y} z_i − z_y) / (z_π1 − z_π3), π the order of the logits (Croce and Hein
    2020, eq. 6)."""
    if logits.shape[1] < 3:
        raise ValueError(f'loss: "dlr" is defined for 3 classes or more, the model has {logits.shape[1]}; use "margin"')
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


LOSSES = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def make_loss(loss: Loss, labels: Tensor, clean: Tensor, targeted: bool) -> Callable[[Tensor], Tensor]:
    """The loss to ascend, as a function of the perturbed logits; a targeted attack descends the loss of its targets.

    Args:
        loss: "ce", "margin", "dlr", or a function of (clean logits, perturbed logits) that returns one value a sample.

    Raises:
        ValueError: another name; "dlr" with targets.
    """
    if labels.is_inference():  # a graph cannot hold them
        labels = labels.clone()
    sign = -1.0 if targeted else 1.0
    if callable(loss):
        function = loss

        def checked(logits: Tensor) -> Tensor:
            value = function(clean, logits)
            if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"loss: expected one value a sample, shape ({len(logits)},), got {got}")
            return sign * value

        return checked
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, or a function of two logits, got {loss!r}")
    if loss == "dlr" and targeted:
        raise ValueError('loss: "dlr" is not defined for targeted attacks; use "margin" or "ce"')
    named = LOSSES[loss]
    return lambda logits: sign * named(logits, labels)

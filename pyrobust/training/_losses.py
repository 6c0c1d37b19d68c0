"""Losses of logits, in float32 at least whatever autocast made of the logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(logits: Tensor) -> Tensor:
    """``logits`` in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean of −Σ_k q_k log softmax(z)_k with q = (1 − smoothing) · one-hot(y) + smoothing / K."""
    return F.cross_entropy(wide(logits), labels, label_smoothing=smoothing)


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of −log softmax(z)_y: a sample's gradient is then its own, however many others there are."""
    return F.cross_entropy(wide(logits), labels, reduction="sum")


def log_softmax(logits: Tensor) -> Tensor:
    """log softmax(z), (N, K)."""
    return torch.log_softmax(wide(logits), 1)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The sum over the samples of KL(p‖q), from logarithms of probabilities (N, K)."""
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True)

"""Plain cross-entropy training: enough for a network to evaluate, not a recipe for a robust one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fit(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """Minimise the mean cross-entropy with Adam, the rate falling to zero along a half cosine.

    The order of the samples follows from ``seed``; the global random state is neither read nor changed unless the
    model itself draws from it.

    Args:
        model: trained in place and left in evaluation mode.
        inputs: (N, …), on the model's device.
        labels: (N,) int64.
        epochs: passes over the data, at least 1.
        batch_size: samples a step, at least 1; the last step of an epoch may have fewer.
        lr: Adam's initial step size, > 0.
        seed: of the sample order.
        progress: called as ``progress(epochs_done, epochs)`` after each epoch.

    Returns:
        ``model``.

    Raises:
        ValueError: ``epochs`` or ``batch_size`` is below 1, or there are no samples.
    """
    if epochs < 1 or batch_size < 1 or len(inputs) < 1:
        raise ValueError(f"fit: needs epochs, batch_size, samples >= 1, got {epochs}, {batch_size}, {len(inputs)}")
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        for chosen in torch.randperm(len(inputs), generator=generator).split(batch_size):
            chosen = chosen.to(inputs.device)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        if progress is not None:
            progress(epoch + 1, epochs)
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 512) -> float:
    """Share of samples whose largest logit is that of the label, in [0, 1]."""
    batches = zip(inputs.split(batch_size), labels.split(batch_size), strict=True)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches) / len(inputs)

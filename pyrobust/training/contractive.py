"""A contractive autoencoder, for the directions in which the data vary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.attacks._common import check_count, check_number, check_positive
from pyrobust.training.randomness import keyed_seed, shuffled


class ContractiveAutoencoder(nn.Module):
    """h = sigmoid(W x + b), x̂ = sigmoid(Wᵀh + c), for inputs (N, …) in [0, 1], whatever their shape.

    Args:
        size: values an input.
        hidden: values of h.
        seed: of the first W, uniform within ± √(6 / (size + hidden)).

    Source: Rifai et al. 2011, "Contractive auto-encoders".
    """

    def __init__(self, size: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        check_count(size=size, hidden=hidden)
        generator = torch.Generator().manual_seed(keyed_seed(seed))
        bound = (6 / (size + hidden)) ** 0.5
        self.weight = nn.Parameter((2 * torch.rand(hidden, size, generator=generator) - 1) * bound)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output_bias = nn.Parameter(torch.zeros(size))

    def encode(self, inputs: Tensor) -> Tensor:
        """h, (N, hidden)."""
        return torch.sigmoid(F.linear(inputs.flatten(1), self.weight, self.hidden_bias))

    def loss(self, inputs: Tensor, contraction: float) -> Tensor:
        """mean over the samples of the cross-entropy Σ_i H(x_i, x̂_i) + contraction · ‖∂h/∂x‖_F²."""
        hidden = self.encode(inputs)
        outputs = F.linear(hidden, self.weight.T, self.output_bias)
        errors = F.binary_cross_entropy_with_logits(outputs, inputs.flatten(1), reduction="none").sum(1)
        slopes = hidden * (1 - hidden)
        return (errors + contraction * (slopes.square() @ self.weight.square().sum(1))).mean()

    @torch.no_grad()
    def tangents(self, inputs: Tensor, count: int) -> Tensor:
        """(N, count, …): the first right singular vectors of ∂h/∂x, orthonormal: what h tells apart.

        Raises:
            ValueError: ``count`` is not in 1 … min(hidden, size).
        """
        check_tangents(count, min(self.weight.shape))
        hidden = self.encode(inputs)
        jacobian = (hidden * (1 - hidden)).unsqueeze(2) * self.weight
        rows = torch.linalg.svd(jacobian, full_matrices=False).Vh[:, :count]
        return rows.reshape(len(inputs), count, *inputs.shape[1:])


def check_tangents(count: int, most: int) -> None:
    """Raise ValueError unless ``count`` is an integer in 1 … ``most``."""
    check_count(count=count)
    if count > most:
        raise ValueError(f"count: expected at most {most} tangents, got {count}")


def contractive_autoencoder(
    inputs: Tensor,
    hidden: int = 120,
    contraction: float = 0.1,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> ContractiveAutoencoder:
    """Train one with Adam on the cross-entropy of its reconstructions and ``contraction`` · ‖∂h/∂x‖_F².

    Args:
        inputs: (n, …) in [0, 1].
        hidden: size of the code, at least 1.
        contraction: >= 0.
        epochs, batch_size: at least 1.
        lr: > 0.
        seed: of the first weights and of the order of the samples.

    Raises:
        ValueError: naming the argument.

    Source: Rifai et al. 2011; seed 002, §2 (before eq. 4).
    """
    check_count(epochs=epochs, batch_size=batch_size)
    check_number("contraction", contraction, 0)
    check_positive(lr=lr)
    if inputs.ndim < 2 or len(inputs) == 0 or not (inputs.min() >= 0 and inputs.max() <= 1):
        raise ValueError("inputs: expected samples (n, …) in [0, 1]")
    coder = ContractiveAutoencoder(inputs[0].numel(), hidden, seed).to(inputs)
    optimizer = torch.optim.Adam(coder.parameters(), lr=lr)
    for epoch in range(epochs):
        for chosen in shuffled(torch.arange(len(inputs)), seed, epoch).split(batch_size):
            optimizer.zero_grad()
            coder.loss(inputs[chosen.to(inputs.device)], contraction).backward()
            optimizer.step()
    return coder.requires_grad_(False)

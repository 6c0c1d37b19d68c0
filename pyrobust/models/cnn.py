"""Convolutional networks from inputs in [0, 1] to logits. Their weights follow from the seed alone."""

from __future__ import annotations

from torch import nn

from pyrobust.models._build import seeded


def small_cnn(seed: int = 0) -> nn.Sequential:
    """Two 3×3 convolutions (16, 32 with stride 2) and two linear layers for 8×8 grey images: (N, 1, 8, 8) → (N, 10)."""
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        ),
    )


def mnist_cnn(seed: int = 0) -> nn.Sequential:
    """Two 5×5 convolutions (32, 64) with pooling and two linear layers: (N, 1, 28, 28) → (N, 10)."""
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        ),
    )


def cifar_cnn(seed: int = 0) -> nn.Sequential:
    """Three 3×3 convolutions (32, then 64 and 128 with stride 2) and a linear layer: (N, 3, 32, 32) → (N, 10)."""
    return seeded(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128 * 8 * 8, 10),
        ),
    )

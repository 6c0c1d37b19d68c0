"""How large the experiment of `spectral_regularisation` is: networks, data and training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pyrobust.data import FlipAndShift
from pyrobust.models import roth_cnn
from pyrobust.training import Recipe


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        network: in words.
        images, tests: the first so many of the file (None: all).
        steps: of the ascent and of the power iteration in training.
        first: (global, data-dependent): the first constants of the regularisers that are tried.
        trials: at most so many trainings to find a constant.
        mixes: shares of the regulariser in the interpolation, beside 0 and 1.
    """

    data: str
    build: Callable[[], nn.Module]
    network: str
    recipe: Recipe
    images: int | None = None
    tests: int | None = None
    steps: int = 10
    first: tuple[float, float] = (1.0, 0.3)
    trials: int = 8
    mixes: tuple[float, ...] = (0.25, 0.5, 0.75)


def strided_cnn(filters: tuple[int, int, int], channels: int = 3, side: int = 32) -> nn.Sequential:
    """7 layers as `roth_cnn`, narrower, the second convolution of each pair with stride 2 in place of the pooling."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for width in filters:
            for stride in (1, 2):
                layers += [
                    nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                ]  # fmt: skip
                channels = width
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (side // 8) ** 2, 10))


SIZES = {
    "quick": Size(
        "cifar10",
        lambda: strided_cnn((16, 32, 64)),
        "7-layer CNN with batch norm, narrow: pairs of 3×3 convolutions (16, 32, 64), the second of stride 2, and dense 10",
        Recipe(epochs=6, batch_size=64, lr=0.05, weight_decay=5e-4),
        images=4000,
        tests=400,
        steps=2,
        first=(1.5, 1.3),
        trials=3,
        mixes=(0.5,),
    ),
    "full": Size(
        "cifar10",
        roth_cnn,
        "7-layer CNN with batch norm: pairs of 3×3 convolutions (64, 128, 256), each max-pooled, and dense 10",
        Recipe(epochs=40, lr=0.05, weight_decay=5e-4, augment=FlipAndShift()),
        tests=2000,
    ),
    "smoke": Size(
        "digits",
        lambda: strided_cnn((4, 8, 8), channels=1, side=8),
        "tiny CNN with batch norm",
        Recipe(epochs=3, batch_size=16, lr=0.05),
        images=256,
        tests=32,
        steps=1,
        trials=1,
        mixes=(0.5,),
    ),
}

"""Networks for CIFAR-10, (N, 3, 32, 32) in [0, 1] → (N, 10), as the papers describe them. All use ReLU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from pyrobust.models._build import he, initialise, normal, seeded, truncated_normal


def galloway_cnn(seed: int = 0) -> nn.Sequential:
    """The CNN-4 of Galloway et al.: convolutions 8×8 (32, stride 2, padded), 6×6 (64, stride 2), 5×5 (64), dense 10.

    No biases, no pooling and no batch norm. The initial filters have unit l2 norm, as in the published code.

    Source: seed 000, §6, table 1.
    """

    def build() -> nn.Sequential:
        network = nn.Sequential(
            nn.Conv2d(3, 32, 8, stride=2, padding=3, bias=False), nn.ReLU(),
            nn.Conv2d(32, 64, 6, stride=2, bias=False), nn.ReLU(),
            nn.Conv2d(64, 64, 5, bias=False), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 10, bias=False),
        )  # fmt: skip
        initialise(network, truncated_normal(0.1))
        with torch.no_grad():
            for weight in network.parameters():
                weight.div_(weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.ndim - 1)))
        return network

    return seeded(seed, build)


def roth_cnn(seed: int = 0) -> nn.Sequential:
    """A 7-layer CNN with batch norm: pairs of 3×3 convolutions (64, 128, 256), each pair max-pooled 2×2, and dense 10.

    Seed 004 says of its "7-layer CNN" no more than that it uses batch norm. This is our choice of one: the last layer is
    linear, as the decomposition f = W φ of that seed asks, and convolutions have no biases beside batch norm's.

    Source: seed 004, §5.1 (architecture not given there).
    """
    pairs = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        for number, (channels, filters) in enumerate(pairs):
            layers += [nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            if number % 2 == 1:
                layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4 * 4, 10))

    return seeded(seed, build)


def croce_cnn(seed: int = 0, width: float = 1.0) -> nn.Sequential:
    """The network of Croce and Hein: eight convolutions (96, 96, 192 five times, 384), dense layers of 1200 and 10.

    3×3, padded, but for the last, which is 2×2; layers 3, 6 and 8 have stride 2. This has as many parameters as the
    published weights. Biases throughout, as in the plain network (the adversarially trained ones have none in the
    convolutions). Initial weights after He et al. 2015, since torch's would let the signal vanish in ten layers without
    batch norm.

    Args:
        seed: of the initial weights.
        width: > 0; every layer but the last has ``width`` times as many filters or units.

    Raises:
        ValueError: ``width`` leaves a layer without filters.

    Source: Croce and Hein 2020 (FAB), experiments and published code; the CIFAR-10 models of seed 003, §5.4.
    """
    narrow, middle, wide, dense = _scaled(width, 96, 192, 384, 1200)
    layers = [
        (narrow, 3, 1),
        (narrow, 3, 1),
        (middle, 3, 2),
        (middle, 3, 1),
        (middle, 3, 1),
        (middle, 3, 2),
        (middle, 3, 1),
        (wide, 2, 2),
    ]

    def build() -> nn.Sequential:
        modules: list[nn.Module] = []
        channels = 3
        for filters, size, stride in layers:
            modules += [nn.Conv2d(channels, filters, size, stride=stride, padding=(size - 1) // 2), nn.ReLU()]
            channels = filters
        modules += [nn.Flatten(), nn.Linear(wide * 4 * 4, dense), nn.ReLU(), nn.Linear(dense, 10)]
        return initialise(nn.Sequential(*modules), he("fan_in"))

    return seeded(seed, build)


def nin(seed: int = 0, width: float = 1.0) -> nn.Sequential:
    """Network in Network: three blocks of a 5×5, 5×5 and 3×3 convolution and two 1×1 convolutions; averages as logits.

    The first two blocks are followed by overlapping 3×3 pools of stride 2 (maximum, then mean) and dropout 1/2; the last
    ends in ten rectified maps, whose means are the logits. Initial weights N(0, 0.05²), as in the published definition,
    which are meant for inputs of unit contrast.

    Args:
        seed: of the initial weights.
        width: > 0; filters of all layers but the last are ``width`` times as many, and the variance of the initial weights
            1 / ``width`` times as large, so that the signal keeps its strength.

    Raises:
        ValueError: ``width`` leaves a layer without filters.

    Source: Lin et al. 2014; seed 003, §3.5.2, where inputs are contrast-normalised and whitened first
    (:class:`pyrobust.models.GlobalContrast`, :class:`pyrobust.models.ZCA`).
    """
    wide, middle, narrow = _scaled(width, 192, 160, 96)

    def block(channels: int, size: int, *filters: int) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Conv2d(channels, filters[0], size, padding=size // 2), nn.ReLU()]
        for before, after in pairwise(filters):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        return layers

    return seeded(
        seed,
        lambda: initialise(
            nn.Sequential(
                *block(3, 5, wide, middle, narrow), nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.Dropout(),
                *block(narrow, 5, wide, wide, wide), nn.AvgPool2d(3, stride=2, ceil_mode=True), nn.Dropout(),
                *block(wide, 3, wide, wide, 10), nn.AvgPool2d(8), nn.Flatten(),
            ),
            normal(0.05 / width**0.5),
        ),
    )  # fmt: skip


def vgg(seed: int = 0) -> nn.Sequential:
    """Zagoruyko's VGG with batch norm and dropout: 13 3×3 convolutions in five groups (64, 128, 256, 512, 512), dense 512.

    Every group ends in a 2×2 max pool, and its other convolutions in dropout (0.3 in the first group, then 0.4); dropout
    1/2 before both dense layers. Initial convolutions after He et al. 2015, by fan-out.

    Source: Zagoruyko, "92.45 % on CIFAR-10 in Torch", 2015; the baseline of seed 002, §5.2 (without its random flips).
    """
    groups = [(3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)]

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels, filters, count in groups:
            for number in range(count):
                layers += [
                    nn.Conv2d(channels if number == 0 else filters, filters, 3, padding=1),
                    nn.BatchNorm2d(filters, eps=1e-3),
                    nn.ReLU(),
                ]
                if number < count - 1:
                    layers.append(nn.Dropout(0.3 if filters == 64 else 0.4))
            layers.append(nn.MaxPool2d(2))
        initialise(nn.Sequential(*layers), he("fan_out"))
        return nn.Sequential(
            *layers, nn.Flatten(),
            nn.Dropout(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(),
            nn.Dropout(), nn.Linear(512, 10),
        )  # fmt: skip

    return seeded(seed, build)


def _scaled(width: float, *filters: int) -> list[int]:
    scaled = [round(width * count) for count in filters]
    if min(scaled) < 1:
        raise ValueError(f"width: expected at least one filter a layer, got {width}")
    return scaled

"""The network of the adversary critic."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GaussianNoise(nn.Module):
    """Adds Gaussian noise of a standard deviation in training mode, drawn as dropout is, from torch's random state."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, torch.randn_like(x), alpha=self.deviation) if self.training else x


def critic_mlp(features: int, classes: int, width: int = 1200, seed: int = 0) -> nn.Sequential:
    """The seed's critic: two layers of ``width`` leaky rectified units, with noise on the input of each layer, then K outputs.

    Args:
        features: values of an input.
        classes: K.
        width: of both layers.
        seed: of the initial weights.

    Source: seed 003, §4.5; the deviations 0.1 and 0.5 of the noise, and the slope 0.2, are those of the published code.
    """
    sizes = (features, width, width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten(), GaussianNoise(0.1)]
        for size in sizes[:-1]:
            layers += [nn.Linear(size, width), nn.LeakyReLU(0.2), GaussianNoise(0.5)]
        layers.append(nn.Linear(width, classes))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

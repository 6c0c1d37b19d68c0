"""What the factories of networks share: weights that follow from a seed alone, and the schemes that papers start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Built = TypeVar("Built")
Network = TypeVar("Network", bound=nn.Module)


def seeded(seed: int, build: Callable[[], Built]) -> Built:
    """Call ``build`` so that what it draws depends on ``seed`` alone, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def initialise(network: Network, draw: Callable[[Tensor], Tensor], bias: float = 0.0) -> Network:
    """Fill the weights of all convolutions and linear layers by ``draw`` (in place), and their biases with ``bias``."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            draw(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
    return network


def normal(std: float) -> Callable[[Tensor], Tensor]:
    """N(0, std²)."""
    return lambda weight: nn.init.normal_(weight, std=std)


def truncated_normal(std: float) -> Callable[[Tensor], Tensor]:
    """N(0, std²), cut off at two standard deviations."""
    return lambda weight: nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def he(mode: Literal["fan_in", "fan_out"]) -> Callable[[Tensor], Tensor]:
    """N(0, 2 / fan) by the fan in or out (He et al. 2015): the scale of the signal, or of its gradient,
    stays the same through layers of ReLU."""
    return lambda weight: nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")

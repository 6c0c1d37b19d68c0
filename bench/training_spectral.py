"""What spectral norms of all weights add to a training step of a wide residual network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import report, training_peers
from bench.timing import Contender, race
from pyrobust.models import wide_resnet
from pyrobust.training import Batch, SpectralNorm


def with_sgd(model: nn.Module, step: Callable[[], Tensor]) -> Callable[[], None]:
    """A whole step of training: gradients, then SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        step().backward()
        optimizer.step()

    return run


def run(device: torch.device, smoke: bool, batch: int, rounds: int) -> list[report.Row]:
    """What spectral norms add to a step with SGD on WRN-28-10: ours, a plain loop, torch's parametrisation.

    The penalties alone are timed as well, their gradients added to those that are there: on a machine that is not idle the
    difference of two long steps tells nothing.
    """
    depth, width = (10, 1) if smoke else (28, 10)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(batch, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (batch,), generator=generator).to(device)
    model = wide_resnet(depth, width).to(device).train()
    term = SpectralNorm(model)
    plain = training_peers.plain_spectral_norms(model)
    normalised = copy.deepcopy(model)
    for module in list(normalised.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            torch.nn.utils.parametrizations.spectral_norm(module)
    unused = Batch(inputs, labels, labels)

    def loss(network: nn.Module = model) -> Tensor:
        return F.cross_entropy(network(inputs), labels)

    def alone(penalty: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: (0.01 * penalty()).backward()

    steps = {
        "standard": with_sgd(model, loss),
        "SpectralNorm": with_sgd(model, lambda: loss() + 0.01 * term(model, unused)),
        "plain PyTorch, layer by layer": with_sgd(model, lambda: loss() + 0.01 * plain()),
        "torch.nn.utils.parametrizations.spectral_norm": with_sgd(normalised, lambda: loss(normalised)),
        "SpectralNorm alone": alone(lambda: term(model, unused)),
        "plain PyTorch alone": alone(plain),
    }
    times = race(
        [Contender(name, [step], budget=math.inf) for name, step in steps.items()], device, rounds=rounds, max_repeats=1
    )
    standard = times["standard"]
    return [
        {
            "step": name, "network": f"WRN-{depth}-{width}", "batch": batch, "ms": time.minimum * 1e3, "times": time.to_json(),
            "over_standard": time.minimum / standard.minimum, "over_standard_median": time.median / standard.median,
        }
        for name, time in times.items()
    ]  # fmt: skip

"""What a peer's attack sees of the model, and what it cannot reach."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from pyrobust._checks import Bounds
from pyrobust.attacks._common import Model


class UnitModel(nn.Module):
    """The model over float32 inputs in [0, 1]. It holds the model out of reach of .to(), .train() and .parameters()."""

    def __init__(self, model: Model, inputs: Tensor, bounds: Bounds) -> None:
        super().__init__()
        self._model, self._dtype, self._bounds = [model], inputs.dtype, bounds  # in a list: no submodule
        # torchattacks reads the device from the first parameter.
        self.anchor = nn.Parameter(torch.empty(0, device=inputs.device), requires_grad=False)

    def scaled(self, inputs: Tensor) -> Tensor:
        low, high = self._bounds
        unit = inputs if self._bounds == (0.0, 1.0) else ((inputs - low) / (high - low)).clamp(0, 1)
        return unit.to(torch.float32)

    def restored(self, unit: Tensor) -> Tensor:
        low, high = self._bounds
        unit = unit.to(self._dtype)
        return unit if self._bounds == (0.0, 1.0) else low + (high - low) * unit

    def forward(self, unit: Tensor) -> Tensor:
        logits: Tensor = self._model[0](self.restored(unit))
        return logits.to(torch.float32)


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """No gradient is asked of, or left in, the model's parameters: several peers call backward()."""
    asking = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random numbers of torch, numpy and Python that follow from ``seed``, put back afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)

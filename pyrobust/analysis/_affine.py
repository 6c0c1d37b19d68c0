"""The weights of a linear classifier, read off a model of whatever make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust._checks import Model, check_inputs, check_labels, check_logits
from pyrobust.attacks._common import check_count, logits_and_grad, undisturbed

TOLERANCE = 1e-4  # of Σ |wᵢ xᵢ| + |b|: far above the rounding of float32, far below what a network bends
ROUNDING = 64  # machine epsilons, of what is added up at the first input and subtracted to get b: all there is where weights are 0


class Affine(NamedTuple):
    """s(x) = w·x + b, in float64: w shaped like an input, and b a scalar tensor."""

    weight: Tensor
    bias: Tensor

    def scores(self, inputs: Tensor) -> Tensor:
        """s, (N,), in float64."""
        return inputs.detach().double().flatten(1) @ self.weight.flatten() + self.bias


def affine_score(model: Model, inputs: Tensor, batch_size: int) -> Affine:
    """w and b with z₁ − z₀ = w·x + b, by the gradient at one input, checked against the logits at all of them.

    Raises:
        TypeError, ValueError: the inputs are not as they should be, the model has not two logits, their difference is not
            affine in the inputs, or it does not depend on them.
    """
    check_inputs(inputs, (-math.inf, math.inf))
    with undisturbed(model):
        seed = torch.tensor([[-1.0, 1.0]], device=inputs.device)
        logits, grad = logits_and_grad(model, inputs[:1], lambda logits: seed.expand_as(_two(logits, 1)))
        weight = grad[0].double()
        if not bool(weight.any()):
            raise ValueError("model: expected logits that depend on the inputs, got weights of 0")
        x = inputs[0].detach().double().flatten()
        first = (logits[0, 1].double() - logits[0, 0].double()) - x @ weight.flatten()
        found = Affine(weight, first)
        added = logits[0].double().abs().sum() + x.abs() @ weight.flatten().abs()
        for rows in inputs.detach().split(batch_size):
            with torch.no_grad():
                low, high = _two(model(rows), len(rows)).double().unbind(1)
            size = rows.double().flatten(1).abs() @ weight.flatten().abs() + first.abs()
            lost = ROUNDING * torch.finfo(logits.dtype).eps * (added + low.abs() + high.abs())
            if not bool(
                ((high - low - found.scores(rows)).abs() <= TOLERANCE * size + lost).all()
            ):  # nor where it is NaN
                raise ValueError("model: expected logits whose difference is affine in the inputs")
    return found


def affine_scores(models: Mapping[str, Model], inputs: Tensor, labels: Tensor, batch_size: int) -> list[Affine]:
    """:func:`affine_score` of each model, with the labels 0 and 1 checked.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if not models:
        raise ValueError("models: expected at least one")
    check_count(batch_size=batch_size)
    found = [affine_score(model, inputs, batch_size) for model in models.values()]
    check_labels(labels, inputs, 2)
    return found


def _two(logits: Tensor, batch: int) -> Tensor:
    if check_logits(logits, batch) != 2:
        raise ValueError(f"model: expected two logits a sample, got {logits.shape[1]}")
    return logits

"""Accuracy of linear classifiers of two classes over what an attacker may change, without running an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import Bounds, Model, Norm, check_bounds, check_inputs, norm_name
from pyrobust.analysis._affine import affine_scores
from pyrobust.analysis.linear import nearest_in_half_space
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LinearRobustness:
    """The exact distance of every sample to the nearest one that a model gets wrong.

    Attributes:
        names: M models.
        norm: of the distances.
        distance: (M, N), 0 where misclassified, inf where no point inside the bounds is.
    """

    names: tuple[str, ...]
    norm: str
    distance: Tensor

    def accuracy(self, eps: Sequence[float]) -> Tensor:
        """(M, E): robust accuracy, the share of samples that are right and whose distance is above eps."""
        return torch.stack([(self.distance > float(value)).double().mean(1) for value in eps], dim=1)

    def plot(self) -> Figure:
        """Robust accuracy over eps, a step curve a model."""
        from pyrobust.analysis._draw_logistic import draw_robustness

        return draw_robustness(self)


@dataclass(frozen=True)
class ExtremePixels:
    """Accuracy once the pixels of the most extreme weights are at the upper bound, in all samples alike.

    Attributes:
        names: M models.
        pixels: (P,), how many are set at either end of the weights: 0, 1, …
        accuracy: (M, P).
    """

    names: tuple[str, ...]
    pixels: Tensor
    accuracy: Tensor

    def plot(self) -> Figure:
        """Accuracy over how many are set."""
        from pyrobust.analysis._draw_logistic import draw_extremes

        return draw_extremes(self)


def linear_robustness(
    models: Mapping[str, Model],
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    work: Work | None = None,
) -> LinearRobustness:
    """min ‖r‖_p with y s(x + r) ≤ 0 and x + r inside the bounds, exactly.

    For "linf" the samples at distance <= eps are those that FGSM of size eps, clipped to the bounds, breaks: it is the best
    that can be done to a linear model. "l0" counts values, and may set each to either bound.

    Args:
        models: by name; each from (N, …) to two logits whose difference is affine in the inputs.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,), 0 or 1.
        norm: "linf", "l2", "l1" or "l0" (or inf, 2, 1, 0).
        bounds: (low, high) of the inputs.
        batch_size: inputs solved together.
        work: progress and resume.

    Returns:
        LinearRobustness, in float64 on the CPU. A sample on the boundary counts as misclassified.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass and a sort of every sample, for each model.
    Source: seed 000, §3 and figure 7b; see :func:`pyrobust.analysis.nearest_in_half_space`.
    """
    name = norm_name(norm)
    check_inputs(inputs, check_bounds(bounds))
    found = affine_scores(models, inputs, labels, batch_size)
    signs = (2 * labels - 1).double()
    work = work or Work()
    ids = torch.arange(len(inputs), device=inputs.device).split(batch_size)
    distances = []
    for model, (weight, bias) in zip(models, found, strict=True):

        def solved(rows: Tensor, weight: Tensor = weight, bias: Tensor = bias) -> dict[str, Tensor]:
            side = signs[rows]
            toward = side.unsqueeze(1) * weight.flatten()
            return {
                "distance": nearest_in_half_space(
                    inputs[rows], toward, side * bias, norm=name, bounds=bounds
                ).distance
            }  # fmt: skip

        distances.append(joined(work.map(f"{name} distances, {model}", ids, solved))["distance"])
    return LinearRobustness(tuple(models), name, torch.stack(distances))


def extreme_pixels(
    models: Mapping[str, Model],
    inputs: Tensor,
    labels: Tensor,
    *,
    most: int = 50,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
) -> ExtremePixels:
    """Accuracy with the k values of largest and the k of smallest weight set to the upper bound, k = 0 … ``most``.

    An attacker who knows the weights but sees neither image nor label, or so many dead pixels of a sensor. Its strongest
    form, which knows the label and sets one end alone, is :func:`pyrobust.attacks.extreme_weights`.

    Args:
        models: by name; each from (N, …) to two logits whose difference is affine in the inputs.
        inputs: (N, …) inside ``bounds``, of D values.
        labels: int64 (N,), 0 or 1.
        most: 1 … D/2.
        bounds: (low, high) of the inputs.
        batch_size: inputs a forward pass.

    Returns:
        ExtremePixels.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass a model, and 2 · ``most`` values a sample.
    Source: seed 000, §4.2 and figure 7a, which sets both ends, as its published code does.
    """
    low, high = check_bounds(bounds)
    check_inputs(inputs, (low, high))
    check_count(most=most)
    if 2 * most > inputs[0].numel():
        raise ValueError(f"most: expected at most half of the {inputs[0].numel()} values, got {most}")
    x = inputs.detach().double().flatten(1)
    accuracy = []
    for one in affine_scores(models, inputs, labels, batch_size):
        weight = one.weight.flatten()
        order = weight.argsort(descending=True, stable=True)
        added = torch.zeros(len(x), most, dtype=x.dtype, device=x.device)
        for end in (order[:most], order.flip(0)[:most]):
            added += weight[end] * (high - x[:, end])
        scores = one.scores(inputs).unsqueeze(1) + torch.nn.functional.pad(added.cumsum(1), (1, 0))
        accuracy.append(((scores > 0) == (labels == 1).unsqueeze(1)).double().mean(0))
    return ExtremePixels(tuple(models), torch.arange(most + 1), torch.stack(accuracy).cpu())

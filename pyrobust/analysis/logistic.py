"""The weights of linear classifiers of two classes as images, and the perturbations that these give away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Model, check_bounds, check_inputs
from pyrobust.analysis._affine import affine_scores
from pyrobust.analysis.tilting import angles_between, nearest_centroid
from pyrobust.attacks._common import check_number, check_positive

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class WeightImages:
    """Weights, and the perturbations that they tell an attacker, as images.

    Attributes:
        names: M models.
        weight: (M, …), w: positive where brightness speaks for class 1.
        sign: (M, …), eps · sign(w), the FGSM perturbation of a sample of class 0; of class 1 it is the negative.
        gradient: (M, …), clip(scale · w / ‖w‖₂, ±eps), that of the clipped fast gradient method.
        angle: (M,), degrees between w and the difference of the class means.
    """

    names: tuple[str, ...]
    weight: Tensor
    sign: Tensor
    gradient: Tensor
    angle: Tensor

    def plot(self) -> Figure:
        """A column a model: weights, and both perturbations."""
        from pyrobust.analysis._draw_logistic import draw_weights

        return draw_weights(self)


def weight_images(
    models: Mapping[str, Model],
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.25,
    scale: float = 100.0,
    batch_size: int = 128,
) -> WeightImages:
    """w, and its two steepest perturbations within ‖r‖∞ ≤ eps: eps · sign(w) and clip(scale · w / ‖w‖₂, ±eps).

    The sign makes as much of weights that are nearly 0 as of the largest; what the model looks at shows in the gradient.

    Args:
        models: by name; each from (N, …) to two logits whose difference is affine in the inputs.
        inputs: (N, …).
        labels: int64 (N,), 0 and 1, both present.
        eps: > 0, in the units of the inputs.
        scale: > 0, l2 length of the gradient before clipping, in the units of the inputs.
        batch_size: inputs a forward pass.

    Returns:
        WeightImages, in float64 on the CPU.

    Raises:
        TypeError, ValueError: naming the argument; a class is missing, or the means are equal.

    Cost: a forward pass a model.
    Source: seed 000, §3, figures 1, 2a and 6.
    """
    check_positive(eps=eps, scale=scale)
    found = affine_scores(models, inputs, labels, batch_size)
    means_apart = nearest_centroid(inputs, labels).weight
    weight = torch.stack([one.weight for one in found])
    rows = weight.flatten(1)
    unit = ops.dual_normalize(rows, 2).reshape(weight.shape)
    parts = weight, eps * weight.sign(), (scale * unit).clamp(-eps, eps), angles_between(rows, means_apart).rad2deg()
    return WeightImages(tuple(models), *(part.cpu() for part in parts))


def fast_gradient_points(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float = 0.25,
    scale: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
) -> Tensor:
    """Π(x − y · eps · sign(w)), or with a scale Π(x − y · clip(scale · w / ‖w‖₂, ±eps)); Π clips to the bounds.

    The points of :func:`pyrobust.attacks.fgm` and :func:`pyrobust.attacks.fgm_clipped` for a linear model, but for
    samples that are misclassified already too, and where the loss has saturated: what is compared is how far they are moved.

    Args:
        model: from (N, …) to two logits whose difference is affine in the inputs.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,), 0 or 1.
        eps: >= 0, in the units of the inputs.
        scale: > 0, in the units of the inputs; None: the sign.
        bounds: (low, high) of the inputs.
        batch_size: inputs a forward pass.

    Returns:
        Like ``inputs``.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: seed 000, §3 and figure 2 ("candidate adversarial examples").
    """
    low, high = check_bounds(bounds)
    check_inputs(inputs, (low, high))
    check_number("eps", eps, 0)
    (one,) = affine_scores({"model": model}, inputs, labels, batch_size)
    if scale is None:
        step = eps * one.weight.sign()
    else:
        check_positive(scale=scale)
        step = (scale * one.weight / one.weight.norm()).clamp(-eps, eps)
    side = (1 - 2 * labels).reshape(-1, *[1] * (inputs.ndim - 1))
    return (inputs.detach() + side * step.to(inputs)).clamp(low, high)

"""Geometry of binary linear classifiers: distances to the boundary, and losses in units of distance.

Labels are 0 (class I of the seed, y = −1) and 1 (class J, y = +1), as of :class:`pyrobust.models.TwoClassLinear`. All is
computed and returned in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust._checks import check_inputs, check_labels

Loss = Literal["hinge", "softplus"]

ANYWHERE = (-float("inf"), float("inf"))

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "0-1": lambda z: (z <= 0).to(z.dtype),
    "hinge": lambda z: (1 - z).clamp(min=0),
    "softplus": lambda z: F.softplus(-z),
}  # f(y s): of support vector machines "hinge", of logistic regression "softplus"


def raw_score(inputs: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    """s(x) = w·x + b; class 1 where it is positive, class 0 where it is negative.

    Args:
        inputs: (N, …).
        weight: w, as many values as an input.
        bias: b, a number or a tensor of one.

    Returns:
        (N,).

    Raises:
        TypeError, ValueError: naming the argument.

    Source: seed 001, "Scaling the Loss Function", setup.
    """
    check_inputs(inputs, ANYWHERE)
    x = inputs.detach().double().flatten(1)
    w = weight.detach().to(x).flatten()
    if w.shape != x.shape[1:]:
        raise ValueError(f"weight: expected {x.shape[1]} values, got shape {tuple(weight.shape)}")
    b = torch.as_tensor(bias, dtype=x.dtype, device=x.device).detach().flatten()
    if b.numel() != 1:
        raise ValueError(f"bias: expected one value, got shape {tuple(b.shape)}")
    return x @ w + b


def signed_distance(inputs: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    """d(x) = s(x) / ‖w‖₂, (N,), in the units of the inputs; arguments as of :func:`raw_score`, w not zero.

    Source: seed 001, "The scaling parameter ‖w‖".
    """
    score = raw_score(inputs, weight, bias)
    return score / weight_norm(weight).to(score)


def scaled_loss(loss: str, distances: Tensor, norm: float | Tensor = 1.0) -> Tensor:
    """f_‖w‖(z) = f(‖w‖ z) at z = y d(x): the loss as a function of distance. With norm 1 the loss f itself.

    Args:
        loss: "0-1" (1 where z ≤ 0), "hinge" (max(1 − z, 0)) or "softplus" (log(1 + e^(−z))).
        distances: z, of any shape.
        norm: ‖w‖₂.

    Returns:
        Like ``distances``.

    Raises:
        ValueError: an unknown loss.

    Source: seed 001, "The scaling parameter ‖w‖".
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {loss!r}")
    return LOSSES[loss](norm * distances)


def empirical_risk(
    inputs: Tensor, labels: Tensor, weight: Tensor, bias: float | Tensor = 0.0, *, loss: str = "hinge"
) -> float:
    """R(w, b) = mean of f(y s(x)); with loss "0-1" the error rate, a sample on the boundary counting as an error.

    Args:
        inputs: (N, …).
        labels: int64 (N,), 0 or 1.
        weight, bias: as of :func:`raw_score`.
        loss: as of :func:`scaled_loss`.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: seed 001, "Scaling the Loss Function", setup.
    """
    score = raw_score(inputs, weight, bias)
    return float(scaled_loss(loss, _signs(inputs, labels) * score).mean())


def margin_distances(inputs: Tensor, labels: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    """y d(x), (N,): negative for misclassified samples. Arguments as of :func:`empirical_risk`, w not zero."""
    distance = signed_distance(inputs, weight, bias)
    return _signs(inputs, labels) * distance


def error_distance(inputs: Tensor, labels: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> float:
    """d_err = mean of max(−y d(x), 0): what is minimised where ‖w‖ is large. Arguments as of :func:`margin_distances`.

    Source: seed 001, "When ‖w‖ is large".
    """
    return float((-margin_distances(inputs, labels, weight, bias)).clamp(min=0).mean())


def adversarial_distance(inputs: Tensor, labels: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> float:
    """d_adv = mean of y d(x): what is maximised where ‖w‖ is small. Arguments as of :func:`margin_distances`.

    For classes of equal size it is ½ ‖j − i‖ cos θ, whatever the bias.

    Source: seed 001, "When ‖w‖ is small", "Adversarial Distance and Tilting Angle".
    """
    return float(margin_distances(inputs, labels, weight, bias).mean())


def _signs(inputs: Tensor, labels: Tensor) -> Tensor:
    check_labels(labels, inputs, 2)
    return 2.0 * labels.double() - 1.0


def weight_norm(weight: Tensor) -> Tensor:
    """‖w‖₂ in float64; ValueError where it is 0 or not finite."""
    norm = weight.detach().double().flatten().norm()
    if not norm > 0 or not norm.isfinite():
        raise ValueError("weight: expected finite values, not all zero")
    return norm

"""What weight decay and adversarial training do to the loss of a linear classifier: one scales it, the other shifts the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from pyrobust._checks import Model, Norm, check_labels, norm_name
from pyrobust.analysis._affine import affine_score
from pyrobust.analysis.geometry import Loss, scaled_loss
from pyrobust.attacks._common import check_count, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DUALS = {"l1": torch.inf, "l2": 2.0, "linf": 1.0}


@dataclass(frozen=True)
class LossTranslation:
    """A linear classifier's scores, and the risk as a function of scale and shift.

    Attributes:
        score: (N,), s(x) = w·x + b in float64, > 0 where class 1 is predicted.
        labels: int64 (N,), 0 or 1.
        length: ‖w‖_q, the norm dual to that of the perturbations.
        norm: of the perturbations, "l2", "linf" or "l1".
        loss: f, "softplus" or "hinge".
    """

    score: Tensor
    labels: Tensor
    length: float
    norm: str
    loss: Loss

    @property
    def distance(self) -> Tensor:
        """(N,), y d(x) = y s(x) / ‖w‖_q: the distance to the boundary in the norm, negative where misclassified."""
        return (2 * self.labels - 1) * self.score / self.length

    def penalty(self, distance: Tensor, scale: float = 1.0) -> Tensor:
        """f(scale · ‖w‖_q · z) at the distances z."""
        return scaled_loss(self.loss, distance, scale * self.length)

    def risk(self, *, scale: float = 1.0, eps: float = 0.0) -> float:
        """mean f(scale · ‖w‖_q (y d(x) − eps)): the loss at the worst points of the balls of radius eps, for the weights
        scale · w."""
        check_number("scale", scale, 0)
        check_number("eps", eps, 0)
        return float(self.penalty(self.distance - eps, scale).mean())

    def error(self, eps: float = 0.0) -> float:
        """The share of samples with y d(x) ≤ eps: misclassified, or made so by some perturbation within eps."""
        check_number("eps", eps, 0)
        return float((self.distance <= eps).double().mean())

    def plot(self) -> Figure:
        """Scores by class, scores times label, and the loss over these: figure 3 of seed 000."""
        from pyrobust.analysis._draw_loss import draw_scores

        return draw_scores(self)

    def plot_loss(self, *, scale: float = 1.0, eps: float = 0.0) -> Figure:
        """The loss f(scale · ‖w‖_q z) over the histogram of z = y d(x) − eps: figures 4 and 5 of seed 000."""
        from pyrobust.analysis._draw_loss import draw_loss

        return draw_loss(self, scale, eps)


def loss_translation(
    model: Model, inputs: Tensor, labels: Tensor, *, norm: Norm = "l2", loss: Loss = "softplus", batch_size: int = 128
) -> LossTranslation:
    """f(y s(x)) = f(‖w‖_q · y d(x)), and at the worst points within eps max f = f(‖w‖_q (y d(x) − eps)), 1/p + 1/q = 1.

    Weight decay shrinks ‖w‖_q, which stretches the loss along the axis of distances and leaves the data where it is;
    adversarial training moves all the data by eps towards the misclassified side and leaves the loss as it is.

    Args:
        model: from (N, …) to two logits (N, 2) whose difference s = z₁ − z₀ is affine in the inputs.
        inputs: (N, …).
        labels: int64 (N,), 0 or 1.
        norm: "l2", "linf" or "l1" (or 2, inf, 1), of the perturbations; they are not confined to any bounds.
        loss: f: "softplus" log(1 + e^(−z)), as in logistic regression, or "hinge" (1 − z)₊.
        batch_size: inputs a forward pass.

    Returns:
        LossTranslation.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: one forward pass, and one backward pass of one input.
    Source: seed 000, §4.1, eq. 2–5 and 7, figures 3–5; seed 001, "Scaling the loss function".
    """
    name = norm_name(norm, tuple(_DUALS))
    if loss not in get_args(Loss):
        raise ValueError(f"loss: expected one of {', '.join(get_args(Loss))}, got {loss!r}")
    check_count(batch_size=batch_size)
    found = affine_score(model, inputs, batch_size)
    check_labels(labels, inputs, 2)
    length = float(torch.linalg.vector_norm(found.weight, _DUALS[name]))
    return LossTranslation(found.scores(inputs).cpu(), labels.cpu(), length, name, loss)

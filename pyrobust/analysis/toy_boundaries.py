"""Support vector machine and logistic regression on the toy problem, over the weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from pyrobust.analysis.geometry import Loss
from pyrobust.analysis.toy import ToyProblem
from pyrobust.attacks._common import check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ToyBoundaries:
    """The classifiers w·x + b that minimise the regularised risk, for every λ, in float64.

    Attributes:
        problem: the training set.
        loss: "hinge" or "softplus".
        decay: (L,), λ.
        weight: (L, 2), w.
        bias: (L,), b.
        angle: (L,), θ in radians, with w = ‖w‖ (cos θ, sin θ).
        error: (L,), share of the training points that are misclassified.
        distance: (L,), d_adv = mean y d(x), d the signed distance to the boundary.
        fits_noisy: (L,) bool, p is classified as I; False where there is none.
    """

    problem: ToyProblem
    loss: Loss
    decay: Tensor
    weight: Tensor
    bias: Tensor
    angle: Tensor
    error: Tensor
    distance: Tensor
    fits_noisy: Tensor

    def plot(self) -> Figure:
        """Tilting angle and adversarial distance over λ."""
        from pyrobust.analysis._draw_toy import draw_decay

        return draw_decay(self)

    def plot_boundary(self, index: int) -> Figure:
        """The boundary of one λ in image space, and an image with its mirror image."""
        from pyrobust.analysis._draw_toy import draw_fitted

        return draw_fitted(self, index)


def toy_boundaries(problem: ToyProblem, loss: Loss = "hinge", *, decay: Sequence[float] | None = None) -> ToyBoundaries:
    """min_{w, b} mean f(y (w·x + b)) + λ/2 ‖w‖², y = ±1: the SVM, or logistic regression, for every λ.

    As λ → 0 both become the separating line of the largest margin (so does ‖w‖ → ∞ for the softplus), which the noisy point
    tilts; as λ grows, p is given up and w turns towards the difference of the class means.

    Args:
        problem: points of both classes.
        loss: f: "hinge" (1 − z)₊ or "softplus" log(1 + e^(−z)).
        decay: λ > 0, in any order; default 10⁻⁵ to 10⁻¹, five a decade.

    Returns:
        ToyBoundaries.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: naming the argument.

    Cost: milliseconds a λ, by scikit-learn's exact solvers (libsvm, Newton).
    Source: seed 001, "Overfitting and L2 regularization".
    """
    if loss not in get_args(Loss):
        raise ValueError(f"loss: expected one of {', '.join(get_args(Loss))}, got {loss!r}")
    values = [10 ** (power / 5) for power in range(-25, -4)] if decay is None else [float(value) for value in decay]
    if not values:
        raise ValueError("decay: expected at least one value")
    for value in values:
        check_number("decay", value, 0, above=True)
    if problem.labels.unique().tolist() != [0, 1]:
        raise ValueError("problem: expected points of both classes")
    fits = [_fit(problem, loss, value) for value in values]
    weight = torch.tensor([[*w] for w, _ in fits], dtype=torch.float64)
    bias = torch.tensor([b for _, b in fits], dtype=torch.float64)
    scores = weight @ problem.inputs.T + bias.unsqueeze(1)
    margins = (2 * problem.labels - 1) * scores
    wrong = margins <= 0
    return ToyBoundaries(
        problem,
        loss,
        torch.tensor(values, dtype=torch.float64),
        weight,
        bias,
        torch.atan2(weight[:, 1], weight[:, 0]),
        wrong.double().mean(1),
        (margins / weight.norm(dim=1, keepdim=True)).mean(1),
        ~wrong[:, -1] & problem.noisy,
    )


def _fit(problem: ToyProblem, loss: Loss, decay: float) -> tuple[list[float], float]:
    """w and b. Of the sum of losses plus ½‖w‖² / C, which scikit-learn minimises, C = 1 / (N λ); b is not decayed."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import SVC
    except ImportError as error:
        raise ImportError("toy_boundaries needs scikit-learn: pip install 'pyrobust[report]'") from error
    strength = 1 / (len(problem.labels) * decay)
    if loss == "hinge":
        solver = SVC(kernel="linear", C=strength, tol=1e-10)
    else:
        solver = LogisticRegression(C=strength, tol=1e-10, max_iter=1000, solver="newton-cholesky")
    solver.fit(problem.inputs.numpy(), problem.labels.numpy())
    return solver.coef_[0].tolist(), float(solver.intercept_[0])

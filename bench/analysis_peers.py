"""What the analyses are timed against: the same numbers from torch.func, from plain loops, and from scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Model = Callable[[Tensor], Tensor]


def jacrev(model: Model, inputs: Tensor) -> Tensor:
    """torch.func: every sample and row in one batched backward pass."""
    rows = torch.func.vmap(torch.func.jacrev(lambda x: model(x.unsqueeze(0)).flatten()))(inputs)
    return torch.linalg.svdvals(rows.flatten(2))


def row_loop(model: Model, inputs: Tensor) -> Tensor:
    """A backward pass a row, of all samples at once."""
    point = inputs.detach().requires_grad_()
    outputs = model(point).flatten(1)
    rows = []
    for number in range(outputs.shape[1]):
        (row,) = torch.autograd.grad(outputs[:, number].sum(), point, retain_graph=True)
        rows.append(row.flatten(1))
    return torch.linalg.svdvals(torch.stack(rows, 1))


def sample_loop(model: Model, inputs: Tensor) -> Tensor:
    """A backward pass a row and a sample."""
    found = []
    for sample in inputs:
        rows = torch.autograd.functional.jacobian(lambda x: model(x.unsqueeze(0)).flatten(), sample)
        found.append(torch.linalg.svdvals(rows.flatten(1)))
    return torch.stack(found)


SPECTRA: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "torch.func.jacrev + svdvals": jacrev,
    "loop over rows + svdvals": row_loop,
    "loop over samples and rows + svdvals": sample_loop,
}


@dataclass
class Problem:
    """Two classes as scikit-learn takes them, and the loss."""

    samples: NDArray[np.float64]
    signs: NDArray[np.float64]
    loss: str

    def objective(self, weight: NDArray[np.float64], bias: float, lam: float) -> float:
        """λ/2 ‖w‖² + Σ f(y (w·x + b))."""
        margins = self.signs * (self.samples @ weight + bias)
        losses = np.maximum(1 - margins, 0) if self.loss == "hinge" else np.logaddexp(0, -margins)
        return 0.5 * lam * float(weight @ weight) + float(losses.sum())


def solvers(loss: str) -> dict[str, Callable[[float], Any]]:
    """scikit-learn's estimators of C, by name, as accurate as ours: by their own tolerances some are not.

    Tolerances are the loosest powers of ten at which the excess of the objective is below 1e-3 at every λ (3 against 7 of MNIST,
    500 images a class); no limit of iterations ends a fit. liblinear penalises (b / intercept_scaling)² as well: at 20 that
    costs the objective 2e-4, and larger values cost it time.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC, LinearSVC

    if loss == "hinge":
        return {
            "SVC, libsvm": lambda c: SVC(C=c, kernel="linear", tol=1e-5),
            "LinearSVC, liblinear": lambda c: LinearSVC(
                C=c, loss="hinge", intercept_scaling=20, tol=1e-5, max_iter=1_000_000
            ),
        }
    return {
        "LogisticRegression, lbfgs": lambda c: LogisticRegression(C=c, tol=1e-5, max_iter=10_000),
        "LogisticRegression, newton-cholesky": lambda c: LogisticRegression(
            C=c, solver="newton-cholesky", tol=1e-4, max_iter=1000
        ),
    }


def sweep(problem: Problem, make: Callable[[float], Any], lambdas: Sequence[float]) -> list[float]:
    """The objective that each λ ends at, C = 1/λ."""
    found = []
    for lam in lambdas:
        fitted = make(1 / lam).fit(problem.samples, problem.signs)
        found.append(problem.objective(fitted.coef_[0], float(np.ravel(fitted.intercept_)[0]), lam))
    return found

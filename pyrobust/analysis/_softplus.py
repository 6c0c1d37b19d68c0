"""Logistic regression along a path of λ: Newton's method, its systems solved by conjugate gradients.

The preconditioner is the Hessian of an earlier λ, factorised. It ages slowly along a path: a few factorisations serve all of it,
and a Newton step costs a few products with the data instead of a Hessian.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust.analysis._duality import NotSolvedError, Solution, allowed_gap, balanced

AGED = 8  # iterations of conjugate gradients that, where they are not enough, let the preconditioner be made anew
CG_STEPS, NEWTON_STEPS, HALVINGS = 20, 100, 40
ACCURACY = 0.01  # of the conjugate gradients, in the squared norm of the preconditioner
DESCENT = 1e-4  # Armijo's constant


class SoftplusPath:
    """Solves for one λ after another, each from where the one before ended.

    Args:
        rows: yᵢ (xᵢ, 1), of classes of any sizes, both present.
        tolerance: of the gap, relative to λ/2 ‖w‖².
    """

    def __init__(self, rows: Tensor, tolerance: float) -> None:
        self.rows, self.tolerance = rows, tolerance
        self.point = torch.zeros_like(rows[0])  # (w, b)
        self.factor: Tensor | None = None

    def solve(self, lam: float) -> Solution:
        """Minimise P.

        Raises:
            NotSolvedError: the gap did not become as small as asked.
        """
        ridge = torch.full_like(self.point, lam)
        ridge[-1] = 0.0
        margins = self.rows @ self.point
        for _ in range(NEWTON_STEPS):
            energy = float(0.5 * (ridge * self.point).dot(self.point))
            primal = energy + float(F.softplus(-margins).sum())
            slopes = torch.sigmoid(-margins)
            gap = primal - self._dual(slopes, lam)
            if energy > 0 and gap <= allowed_gap(self.tolerance, energy, primal):  # w = 0 has no direction
                return Solution(self.point[:-1].clone(), self.point[-1].clone(), max(gap, 0.0) / primal)
            grad = ridge * self.point - self.rows.T @ slopes
            step, moved = self._newton_step(grad, slopes * torch.sigmoid(margins), ridge)
            descent, length = float(grad.dot(step)), 1.0
            for _ in range(HALVINGS):
                point = self.point + length * step
                value = float(0.5 * (ridge * point).dot(point) + F.softplus(-margins - length * moved).sum())
                if value <= primal + DESCENT * length * descent + 1e-14 * primal:
                    break
                length /= 2
            self.point, margins = point, margins + length * moved
        raise NotSolvedError(f"softplus loss, λ = {lam:g}: gap {gap / primal:.1e} after {NEWTON_STEPS} steps")

    def _dual(self, slopes: Tensor, lam: float) -> float:
        alpha = balanced(slopes, self.rows)
        pull = (self.rows.T @ alpha)[:-1]
        entropy = -(torch.xlogy(alpha, alpha) + torch.special.xlog1py(1 - alpha, -alpha)).sum()
        return float(entropy - pull.dot(pull) / (2 * lam))

    def _newton_step(self, grad: Tensor, curvature: Tensor, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """About −H⁻¹ grad with H = diag(ridge) + Σ curvatureᵢ rowᵢ rowᵢᵀ, and how it moves the margins."""
        if self.factor is None:
            hessian = self.rows.T @ (curvature.unsqueeze(1) * self.rows)
            hessian.diagonal().add_(ridge)
            self.factor = torch.linalg.cholesky(hessian)
        factor = self.factor
        step, moved, left = torch.zeros_like(grad), torch.zeros_like(curvature), -grad
        towards = solved = torch.cholesky_solve(left.unsqueeze(1), factor).squeeze(1)
        size = first = left.dot(solved)
        for count in range(CG_STEPS):
            ahead = self.rows @ towards
            product = ridge * towards + self.rows.T @ (curvature * ahead)
            length = size / towards.dot(product)
            step, moved, left = step + length * towards, moved + length * ahead, left - length * product
            solved = torch.cholesky_solve(left.unsqueeze(1), factor).squeeze(1)
            before, size = size, left.dot(solved)
            if size <= ACCURACY * first:
                break
            towards = solved + (size / before) * towards
            if count + 1 == AGED:
                self.factor = None  # the next call makes it anew
        return step, moved

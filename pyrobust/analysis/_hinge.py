"""Support vector machines along a path of λ: an augmented Lagrangian method with semismooth Newton steps.

Around prices α ∈ [0, 1]ᴺ the method minimises, over (w, b), the smooth upper envelope whose gradient is

    λ w − Σᵢ αᵢ⁺ yᵢ xᵢ  and  −Σᵢ αᵢ⁺ yᵢ,  α⁺ = clip(α + σ (1 − margin), 0, 1),

and takes α⁺ as the next α. The envelope is quadratic in pieces, so Newton's method ends after finitely many steps; its Hessian
λ I + σ Σ (xᵢ, 1)(xᵢ, 1)ᵀ has only the few hundred samples on the margin in it, and the smaller of the two Gram matrices of those
is factorised. At its end the equality Σ αᵢ⁺ yᵢ = 0 holds to
rounding. Rockafellar 1976; Li, Sun and Toh 2018 (for the lasso).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust.analysis._duality import NotSolvedError, Solution, allowed_gap, balanced

# Of the penalty: few enough Newton steps for the first α⁺, few α⁺ in all (measured on 7 versus 9), and small enough at last that
# the rounding of a margin, σ times as large in α, does no harm.
SIGMA, GROWTH, LARGEST = 10.0, 4.0, 1e5
FREE_BIAS = 1e-9  # σ times it is the curvature in a bias that no sample on the margin determines
INNER = 0.1  # the share of the gap that the envelope's minimum may be missed by
OUTER_STEPS, NEWTON_STEPS, HALVINGS = 100, 200, 40


class HingePath:
    """Solves for one λ after another, each from where the one before ended.

    Args:
        rows: yᵢ (xᵢ, 1), of classes of any sizes, both present.
        tolerance: of the gap, relative to λ/2 ‖w‖².
    """

    def __init__(self, rows: Tensor, tolerance: float) -> None:
        self.rows, self.tolerance = rows, tolerance
        self.alpha = balanced(rows.new_ones(len(rows)), rows)
        self.point = torch.zeros_like(rows[0])  # (w, b)

    def solve(self, lam: float) -> Solution:
        """Minimise P.

        Raises:
            NotSolvedError: the gap did not become as small as asked, or λ is too small for float64.
        """
        if not self.point.any():  # every sample is inside the margin for large λ, where this is the solution
            self.point[:-1] = (self.rows.T @ self.alpha)[:-1] / lam
            self.point[-1] = self._bias(self.rows @ self.point)
        sigma = SIGMA
        for _ in range(OUTER_STEPS):
            margins = self._minimise_envelope(lam, sigma)
            weight, shift = self.point[:-1], self._bias(margins) - self.point[-1]
            energy = float(0.5 * lam * weight.dot(weight))
            primal = energy + float((1 - margins - shift * self.rows[:, -1]).clamp(min=0).sum())
            alpha = balanced(self.alpha, self.rows)
            pull = (self.rows.T @ alpha)[:-1]
            gap = primal - float(alpha.sum() - pull.dot(pull) / (2 * lam))
            if gap <= allowed_gap(self.tolerance, energy, primal):
                return Solution(weight.clone(), self.point[-1] + shift, max(gap, 0.0) / primal)
            sigma = min(sigma * GROWTH, LARGEST)
        raise NotSolvedError(f"hinge loss, λ = {lam:g}: gap {gap / primal:.1e} after {OUTER_STEPS} steps")

    def _minimise_envelope(self, lam: float, sigma: float) -> Tensor:
        """Newton's method in (w, b); replaces α and returns the margins."""
        rows, start = self.rows, self.alpha
        ridge = torch.full_like(self.point, lam)
        ridge[-1] = 0.0
        margins = rows @ self.point
        for _ in range(NEWTON_STEPS):
            prices = start + sigma * (1 - margins)
            self.alpha = prices.clamp(0, 1)
            grad = ridge * self.point - rows.T @ self.alpha
            energy = float(0.5 * (ridge * self.point).dot(self.point))
            miss = float(grad[:-1].dot(grad[:-1]) / (2 * lam) + grad[-1].abs())
            if miss <= INNER * allowed_gap(self.tolerance, energy, energy + float((1 - margins).clamp(min=0).sum())):
                break
            step = self._newton_step(rows[(prices > 0) & (prices < 1)], grad, lam, sigma)
            moved = rows @ step
            length = self._length(
                prices, sigma * moved, (ridge * self.point).dot(step), (ridge * step).dot(step), sigma
            )
            self.point = self.point + length * step
            margins = margins + length * moved
        return margins

    def _newton_step(self, on_margin: Tensor, grad: Tensor, lam: float, sigma: float) -> Tensor:
        """−H⁻¹ ∇, H = diag(λ, …, λ, 0) + σ AᵀA with the rows A on the margin.

        Where those are fewer than the weights, through the smaller I + σ/λ A_w A_wᵀ: the step moves the margins by u, and
        λ dw + σ A_wᵀ u = −∇_w. What both systems have in common is a bias that is free where no row is on the margin.
        """
        free = FREE_BIAS * sigma
        if len(on_margin) >= len(grad) - 1:
            hessian = on_margin.T @ on_margin
            hessian.mul_(sigma).diagonal()[:-1].add_(lam)
            hessian[-1, -1] += free
            return _solve(hessian, -grad.unsqueeze(1), lam, lam).squeeze(1)
        pulls, signs = on_margin[:, :-1], on_margin[:, -1]
        system = pulls @ pulls.T
        system.mul_(sigma / lam).diagonal().add_(1.0)
        still, along = _solve(system, torch.stack([pulls @ grad[:-1] / -lam, signs], 1), 1.0, lam).unbind(1)
        bias = -(grad[-1] + sigma * signs.dot(still)) / (sigma * signs.dot(along) + free)
        moved = still + bias * along
        return torch.cat([(grad[:-1] + sigma * (moved @ pulls)) / -lam, bias.reshape(1)])

    @staticmethod
    def _length(prices: Tensor, moved: Tensor, slope: Tensor, bend: Tensor, sigma: float) -> float:
        """Along the step: 1, or where the envelope rises again by then, a point at which it is nearly flat."""

        def derivative(t: float) -> float:
            return float(slope + t * bend - (prices - t * moved).clamp(0, 1).dot(moved) / sigma)

        flat = 0.1 * abs(derivative(0.0))
        low, high, t = 0.0, 1.0, 1.0
        rising = derivative(t)
        for _ in range(HALVINGS):
            if rising <= flat and (t == 1.0 or rising >= -flat):
                break
            low, high = (t, high) if rising < 0 else (low, t)
            t = 0.5 * (low + high)
            rising = derivative(t)
        return t

    def _bias(self, margins: Tensor) -> Tensor:
        """The b that minimises P for this w: the middle of the interval in which P is flat, which is mostly a point.

        The slope of P in b is −N₊ far to the left, and grows by 1 at each yᵢ − w·xᵢ: it is 0 between the N₊-th and the next.
        """
        signs = self.rows[:, -1]
        turns = (signs - (signs * margins - self.point[-1])).sort().values
        positive = int((signs > 0).sum())
        return 0.5 * (turns[positive - 1] + turns[positive])


def _solve(matrix: Tensor, right: Tensor, added: float, lam: float) -> Tensor:
    """By Cholesky's factors.

    Args:
        added: to the diagonal of a matrix that may be singular without.

    Raises:
        NotSolvedError: that was lost in the rounding.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed or float(matrix.trace()) * torch.finfo(matrix.dtype).eps > added:
        raise NotSolvedError(f"hinge loss, λ = {lam:g}: too small beside the squared inputs for float64")
    return torch.cholesky_solve(right, factor)

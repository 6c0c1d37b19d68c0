"""What the solvers of regularised linear classifiers share: the problem, its dual, and the proof of how near they are.

The primal, over w and a bias b that is not regularised, with yᵢ = ±1:

    P(w, b) = λ/2 ‖w‖² + Σᵢ f(yᵢ (w·xᵢ + b))

By Fenchel's duality, with the conjugate written for a price αᵢ = −f′ of the margin:

    D(α) = Σᵢ −f*(−αᵢ) − ‖Σᵢ αᵢ yᵢ xᵢ‖² / (2λ),  0 ≤ αᵢ ≤ 1,  Σᵢ αᵢ yᵢ = 0

−f*(−α) is α for the hinge loss and the entropy −α log α − (1 − α) log(1 − α) for softplus. The equality is what minimising over b
means. It is kept by scaling down the α of the class whose sum is the larger, which leaves the box unharmed. Then P ≥ D for
every w, b and α, and as P is strongly convex

    λ/2 ‖w − w*‖² ≤ P − D.

Solvers therefore stop at P − D ≤ tolerance · λ/2 ‖w‖²: w is within √tolerance · ‖w‖ of the optimum (so much for its norm and its
angle), and the gap relative to P is below the tolerance too. Gaps below 10⁻¹² P are lost in rounding and count as 0: where
λ/2 ‖w‖² is below that over the tolerance, which takes a λ far above the nearest-centroid limit, ‖w‖ is found less exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-12  # of P: gaps below it are not told from 0


class Solution(NamedTuple):
    """w (D,), b (), and the relative duality gap (P − D) / P that was proved."""

    weight: Tensor
    bias: Tensor
    gap: float


class NotSolvedError(RuntimeError):
    """A solver ran out of iterations, or of digits, before the duality gap was as small as asked."""


def signed_rows(inputs: Tensor, labels: Tensor) -> Tensor:
    """yᵢ (xᵢ, 1), (N, D + 1) in float64: times (w, b) they are the margins."""
    x = inputs.detach().double().flatten(1)
    signs = 2.0 * labels.to(x) - 1.0
    return signs.unsqueeze(1) * torch.cat([x, x.new_ones(len(x), 1)], 1)


def balanced(alpha: Tensor, rows: Tensor) -> Tensor:
    """α with Σ αᵢ yᵢ = 0: that of the class with the larger sum, scaled down."""
    positive = rows[:, -1] > 0
    low, high = alpha[~positive].sum(), alpha[positive].sum()
    least = torch.minimum(low, high)
    return alpha * torch.where(positive, least / high, least / low).nan_to_num(0.0)


def allowed_gap(tolerance: float, energy: float, primal: float) -> float:
    """The largest P − D to stop at; ``energy`` is λ/2 ‖w‖²."""
    return max(tolerance * energy, ROUNDING * primal)

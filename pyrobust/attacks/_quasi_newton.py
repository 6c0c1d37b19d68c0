"""The limited-memory BFGS matrix of each row of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

_CURVATURE = 1e-8  # ⟨s, y⟩ / (‖s‖ ‖y‖) below which a pair is left out: the matrix has to stay positive definite


class InverseHessians:
    """One inverse Hessian H a row, from the last pairs s (change of the point) and y (change of the gradient).

    H v takes one pass over the pairs to form their products with v, a triangular system of the size of the memory, and
    one pass to combine them (Byrd, Nocedal and Schnabel 1994, eq. 3.1), rather than the two passes a pair of the two-
    loop recursion. With no pair H is ``scale`` times the identity.

    Args:
        rows: (N, D), for number, length and dtype.
        memory: pairs kept.
        scale: of the identity at the start.
    """

    def __init__(self, rows: Tensor, memory: int, scale: float) -> None:
        count, size = rows.shape
        self._pairs = rows.new_zeros(count, 2 * memory, size)  # s and y, each in a ring
        self._products = rows.new_zeros(count, memory, 2 * memory)  # of y with s and y
        self._gamma = rows.new_full((count,), scale)
        self._memory, self._scale, self._newest = memory, scale, -1

    def add(self, s: Tensor, y: Tensor, usable: Tensor) -> None:
        """Replace the oldest pair, by zeros where the pair is not ``usable`` (N,) bool or its curvature not
        positive."""
        sy, yy, ss = (s * y).sum(1), y.square().sum(1), s.square().sum(1)
        usable = usable & (sy > _CURVATURE * (ss * yy).sqrt())
        self._gamma = torch.where(usable, sy / yy, self._gamma)
        self._newest = at = (self._newest + 1) % self._memory
        new = torch.where(usable[:, None, None], torch.stack([s, y], 1), 0)
        self._pairs[:, at :: self._memory] = new
        products = torch.bmm(new, self._pairs.mT)  # of the new s and y with all
        self._products[:, at] = products[:, 1]
        self._products[:, :, at] = products[:, 0, self._memory :]
        self._products[:, :, self._memory + at] = products[:, 1, self._memory :]

    def forget(self, rows: Tensor) -> None:
        """Start again in these rows, (N,) bool."""
        self._pairs.masked_fill_(rows[:, None, None], 0)
        self._products.masked_fill_(rows[:, None, None], 0)
        self._gamma.masked_fill_(rows, self._scale)

    def times(self, v: Tensor) -> Tensor:
        """H v, (N, D)."""
        m, shift = self._memory, -(self._newest + 1)  # rolled so that the oldest pair comes first
        along = torch.bmm(v.unsqueeze(1), self._pairs.mT).squeeze(1)  # with v as a row: 8 times faster on a CPU
        sv, yv = along[:, :m].roll(shift, 1), along[:, m:].roll(shift, 1)
        ys, yy = (part.roll((shift, shift), (1, 2)) for part in self._products.split(m, dim=2))
        diagonal = ys.diagonal(dim1=1, dim2=2)
        upper = ys.mT.triu() + torch.diag_embed((diagonal == 0).to(v.dtype))  # of a pair left out the products are zero
        gamma = self._gamma.unsqueeze(1)
        p = torch.linalg.solve_triangular(upper, sv.unsqueeze(2), upper=True)
        inner = torch.bmm(torch.diag_embed(diagonal) + gamma.unsqueeze(2) * yy, p) - (gamma * yv).unsqueeze(2)
        of_s = torch.linalg.solve_triangular(upper.mT, inner, upper=False).squeeze(2)
        weights = torch.cat([of_s.roll(-shift, 1), (-gamma * p.squeeze(2)).roll(-shift, 1)], 1)
        return torch.baddbmm((gamma * v).unsqueeze(1), weights.unsqueeze(1), self._pairs).squeeze(1)

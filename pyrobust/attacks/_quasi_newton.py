"""The limited-memory BFGS matrix of each row of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust.attacks._common import clear_rows_

_CURVATURE = 1e-8  # ⟨s, y⟩ / (‖s‖ ‖y‖) below which a pair is left out: the matrix has to stay positive definite


class InverseHessians:
    """One inverse Hessian H a row, from the last pairs s (change of the point) and y (change of the gradient).

    One pass over the pairs forms their products with a new pair and with v, and a second one combines them to H v, with a
    triangular system of the size of the memory in between (Byrd, Nocedal and Schnabel 1994, eq. 3.1): the two-loop
    recursion takes two passes a pair. With no pair H is ``scale`` times the identity.

    Args:
        rows: (N, D), for number, length and dtype.
        memory: pairs kept.
        scale: of the identity at the start.

    Attributes:
        s, y, v: (N, D), to be filled in before :meth:`update`: the new pair, and what H is to be multiplied with.
    """

    def __init__(self, rows: Tensor, memory: int, scale: float) -> None:
        count, size = rows.shape
        self._new = rows.new_zeros(count, 3, size)
        self.s, self.y, self.v = self._new.unbind(1)
        self._pairs = rows.new_zeros(count, 2 * memory, size)  # s and y, each in a ring
        self._products = rows.new_zeros(count, memory, 2 * memory)  # of y with s and y
        self._gamma = rows.new_full((count,), scale)
        self._memory, self._scale, self._newest = memory, scale, -1

    def update(self, usable: Tensor, forget: Tensor | None) -> Tensor:
        """Replace the oldest pair, then forget all pairs of some rows; H v, (N, D), with the matrix that this leaves.

        Args:
            usable: (N,) bool: the new pair is left out where it is not, or where its curvature is not positive.
            forget: (N,) bool: the rows that start again, or None.
        """
        m = self._memory
        self._newest = at = (self._newest + 1) % m
        self._pairs[:, at::m].copy_(self._new[:, :2])
        if forget is not None:
            clear_rows_(self._pairs, forget)
            self._products.masked_fill_(forget[:, None, None], 0)
            self._gamma.masked_fill_(forget, self._scale)
        # Rows to the left of the product: 8 times faster on a CPU than columns to the right.
        products = torch.bmm(self._new, self._pairs.mT)
        ss, sy, yy = products[:, 0, at], products[:, 0, m + at], products[:, 1, m + at]
        usable = usable & (sy > _CURVATURE * (ss * yy).sqrt())
        clear_rows_(self._pairs[:, at::m], ~usable)
        products[:, :2].masked_fill_(~usable[:, None, None], 0)
        products[:, :, at::m].masked_fill_(~usable[:, None, None], 0)
        self._gamma = torch.where(usable, sy / yy, self._gamma)
        self._products[:, at] = products[:, 1]
        self._products[:, :, at] = products[:, 0, m:]
        self._products[:, :, m + at] = products[:, 1, m:]
        return self._times(products[:, 2])

    def _times(self, along: Tensor) -> Tensor:
        """H v, (N, D), from the products of v with all pairs (N, 2 · memory)."""
        m, shift = self._memory, -(self._newest + 1)  # rolled so that the oldest pair comes first
        sv, yv = along[:, :m].roll(shift, 1), along[:, m:].roll(shift, 1)
        ys, yy = (part.roll((shift, shift), (1, 2)) for part in self._products.split(m, dim=2))
        diagonal = ys.diagonal(dim1=1, dim2=2)
        # Of a pair left out the products are zero.
        upper = ys.mT.triu() + torch.diag_embed((diagonal == 0).to(self.v.dtype))
        gamma = self._gamma.unsqueeze(1)
        p = torch.linalg.solve_triangular(upper, sv.unsqueeze(2), upper=True)
        inner = torch.bmm(torch.diag_embed(diagonal) + gamma.unsqueeze(2) * yy, p) - (gamma * yv).unsqueeze(2)
        of_s = torch.linalg.solve_triangular(upper.mT, inner, upper=False).squeeze(2)
        weights = torch.cat([of_s.roll(-shift, 1), (-gamma * p.squeeze(2)).roll(-shift, 1)], 1)
        return torch.bmm(weights.unsqueeze(1), self._pairs).squeeze(1).addcmul_(self.v, gamma)

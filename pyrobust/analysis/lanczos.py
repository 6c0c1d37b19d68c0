"""The largest singular values of maps that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops

Product = Callable[[Tensor], Tensor]


class SingularTriples(NamedTuple):
    """Of N maps A, the k largest, in float64.

    Attributes:
        values: (N, k), descending; each is at most the singular value of its rank.
        inner: (N, k, d) unit vectors of the space that A maps from.
        outer: (N, k, D) unit vectors of the space that A maps to.
        residuals: (N, k): ‖Aᵀu − σ v‖₂; some singular value is within it of σ.
        exhausted: (N,) bool: products by A and Aᵀ lead from the start nowhere else, so that the largest value is exact.
        steps: products by A, and by Aᵀ, that were made.
    """

    values: Tensor
    inner: Tensor
    outer: Tensor
    residuals: Tensor
    exhausted: Tensor
    steps: int


def largest_singular(
    product: Product, transposed: Product, start: Tensor, k: int, tolerance: float, steps: int
) -> SingularTriples:
    """A V = U B, Aᵀ U = V Bᵀ + β v eᵀ with B upper bidiagonal: the singular values of B tend to the largest of A.

    Golub–Kahan–Lanczos bidiagonalisation, every vector orthogonalised twice against all before it. Of all methods that know
    A by products it needs the fewest: its space holds every iterate of the power method (seed 004, eq. 6) from the same
    start. Of a singular value that A has several times that space holds one vector, and the copies are missed. Where k > 1 the
    iteration, once it has converged, is therefore run again on what A does to vectors orthogonal to those found, for the largest
    value alone, until it comes upon none that is larger than the last of the k.

    Args:
        product: A, from (N, d) to (N, D).
        transposed: Aᵀ, from (N, D) to (N, d).
        start: (N, d) rows that are not zero, in the dtype in which A is applied; d should be the smaller side.
        k: how many, at most min(d, D).
        tolerance: ends when every residual of the k is below this times the largest value; 0: goes on to the end.
        steps: at most, of each run; d steps are exact.

    Cost: a product by A and one by Aᵀ a step, beside which O((d + D) · steps²).
    Source: Golub and Van Loan 2013, §10.4; Simon 1984 for the orthogonalisation.
    """
    found = _bidiagonalised(product, transposed, start, k, tolerance, steps)
    side = start.shape[1]
    least = max(tolerance, max(side, 16) * torch.finfo(start.dtype).eps)
    settled = bool((found.residuals <= tolerance * found.values[:, :1]).all())
    for turn in range(1, side if k > 1 and settled and found.steps < side else 1):
        known = found.inner

        def rest(v: Tensor, known: Tensor = known) -> Tensor:
            return product(_orthogonal(v.double(), known).to(start.dtype))

        def rest_transposed(u: Tensor, known: Tensor = known) -> Tensor:
            return _orthogonal(transposed(u).double(), known)

        # As random as the start, and of each row a function of its own.
        other = _orthogonal(start.double().roll(turn, 1), known).to(start.dtype)
        more = _bidiagonalised(rest, rest_transposed, other, 1, tolerance, min(steps, side - k))
        missed = more.values[:, 0] > found.values[:, -1] + least * found.values[:, 0]
        found = _merged(found, more, k)
        if not bool(missed.any()):
            break
    return found


def _merged(one: SingularTriples, other: SingularTriples, k: int) -> SingularTriples:
    values, order = torch.cat([one.values, other.values], 1).sort(dim=1, descending=True, stable=True)
    order = order[:, :k]

    def chosen(name: str) -> Tensor:
        both = torch.cat([getattr(one, name), getattr(other, name)], 1)
        return both.gather(1, order.reshape(*order.shape, *[1] * (both.ndim - 2)).expand(-1, -1, *both.shape[2:]))

    inner, outer, residuals = chosen("inner"), chosen("outer"), chosen("residuals")
    return SingularTriples(values[:, :k], inner, outer, residuals, one.exhausted, one.steps + other.steps)


def _bidiagonalised(
    product: Product, transposed: Product, start: Tensor, k: int, tolerance: float, steps: int
) -> SingularTriples:
    """One run. Where the space is used up a random direction is taken in."""
    count, side = start.shape
    steps = min(steps, side)
    limit = max(side, 16) * torch.finfo(start.dtype).eps  # below it, a vector is rounding
    noise = torch.Generator().manual_seed(0)
    inner = start.new_zeros(count, steps, side, dtype=torch.float64)
    small = inner.new_zeros(count, steps, steps)
    v, _ = _unit(start.double())
    scale = inner.new_zeros(count)
    beta, outer = scale, inner
    exhausted = complete = scale.bool()
    for step in range(steps):
        inner[:, step] = v
        p = product(v.to(start.dtype)).double()
        if step == 0:
            outer = inner.new_zeros(count, steps, p.shape[1])
        u, alpha = _fresh(p, outer[:, :step], limit * scale, noise)
        complete = complete | ((alpha == 0) & (beta == 0))  # a random direction leads nowhere: all the rest of A is 0
        outer[:, step], small[:, step, step] = u, alpha
        if step > 0:
            small[:, step - 1, step] = beta
        scale = torch.maximum(scale, torch.maximum(alpha, beta))
        r = transposed(u.to(start.dtype)).double()
        v, beta = _fresh(r, inner[:, : step + 1], limit * scale, noise)
        exhausted = exhausted | (alpha == 0) | (beta == 0)
        done = step + 1
        if done >= k:
            left, values, right = torch.linalg.svd(small[:, :done, :done])
            residuals = beta.unsqueeze(1) * left[:, -1, :k].abs()
            settled = (residuals < tolerance * values[:, :1]).all(1)
            settled = settled | (exhausted if k == 1 else complete)
            if done == steps or bool(settled.all()):
                break
    vectors = right[:, :k] @ inner[:, :done], left[:, :, :k].mT @ outer[:, :done]
    return SingularTriples(values[:, :k], *vectors, residuals, exhausted, done)


def _fresh(z: Tensor, basis: Tensor, floor: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """The direction of the part of z that is orthogonal to the basis, and its length; a random direction and 0 where
    nothing but rounding is left of it."""
    rest, length = _unit(_orthogonal(z, basis))
    lost = length <= floor
    if bool(lost.any()):
        other = torch.randn(z.shape, generator=noise, dtype=z.dtype).to(z.device)
        rest = torch.where(lost.unsqueeze(1), _unit(_orthogonal(other, basis))[0], rest)
        length = length.masked_fill(lost, 0)
    return _unit(_orthogonal(rest, basis))[0], length


def _orthogonal(z: Tensor, basis: Tensor) -> Tensor:
    for _ in range(2):  # rounding leaves of the first time what the second removes
        z = z - (basis.mT @ (basis @ z.unsqueeze(2))).squeeze(2)
    return z


def _unit(z: Tensor) -> tuple[Tensor, Tensor]:
    step = ops.power_iteration_step(z, 2.0)
    return step.direction, step.value

"""Proximal operators prox_λf(x) = argmin_u λ f(u) + ½ ‖u − x‖₂², row by row (seed 003, §5.3).

Dimension 0 is the batch and all others together are one row; a 1-D tensor is one row. The weight λ is a number >= 0 or
a tensor with one value a row. Each costs one read and one write of its data. A row whose weight is negative or NaN
becomes NaN; NaN in a row stays in place for the separable operators (l0, l1) and makes the whole row NaN for l2 and
linf, as ±Inf does. Differentiable in ``x``.
"""

from __future__ import annotations

from torch import Tensor

from pyrobust.ops import _reference as ref
from pyrobust.ops import _vjp as vjp
from pyrobust.ops._register import RowOp, channels_of, check_rows, split_scalar

_WEIGHT = "float weight, Tensor? weights"
_L0 = RowOp("prox_l0", _WEIGHT, ref.prox_l0, vjp.mask)
_L1 = RowOp("prox_l1", _WEIGHT, ref.prox_l1, vjp.prox_l1)
_L2 = RowOp("prox_l2", _WEIGHT, ref.prox_l2, vjp.prox_l2)
_LINF = RowOp("prox_linf", _WEIGHT, ref.prox_linf, vjp.prox_linf)
_L0_GROUP = RowOp(
    "prox_l0_group", f"{_WEIGHT}, int channels, int by_max", ref.prox_l0_group, vjp.prox_l0_group, channels=2
)


def _checked(name: str, x: Tensor, weight: float | Tensor) -> tuple[float, Tensor | None]:
    check_rows(name, x)
    return split_scalar(name, "weight", weight, x)


def prox_l0(x: Tensor, weight: float | Tensor) -> Tensor:
    """prox of λ‖·‖₀: x where |x| > √(2λ), else 0 (hard thresholding).

    Args:
        x: (N, …) or (D,).
        weight: λ >= 0; a number or (N,).

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: dtype not supported.
        ValueError: negative or NaN ``weight``, or its shape or device does not fit.

    Source: seed 003, eq. 5.14 (corrected: it is |x| that is thresholded).
    """
    return _L0(x, *_checked("prox_l0", x, weight))


def prox_l0_(x: Tensor, weight: float | Tensor) -> Tensor:
    """In-place :func:`prox_l0`; returns ``x``."""
    return _L0.in_place(x, *_checked("prox_l0_", x, weight))


def prox_l1(x: Tensor, weight: float | Tensor) -> Tensor:
    """prox of λ‖·‖₁: sign(x) (|x| − λ)₊ (soft thresholding). Arguments as :func:`prox_l0`.

    Source: seed 003, eq. 5.13 (corrected: it is |x| that is shortened).
    """
    return _L1(x, *_checked("prox_l1", x, weight))


def prox_l1_(x: Tensor, weight: float | Tensor) -> Tensor:
    """In-place :func:`prox_l1`; returns ``x``."""
    return _L1.in_place(x, *_checked("prox_l1_", x, weight))


def prox_l2(x: Tensor, weight: float | Tensor) -> Tensor:
    """prox of λ‖·‖₂: (1 − λ / ‖x‖₂)₊ x. Arguments as :func:`prox_l0`. Source: seed 003, eq. 5.12."""
    return _L2(x, *_checked("prox_l2", x, weight))


def prox_l2_(x: Tensor, weight: float | Tensor) -> Tensor:
    """In-place :func:`prox_l2`; returns ``x``."""
    return _L2.in_place(x, *_checked("prox_l2_", x, weight))


def prox_linf(x: Tensor, weight: float | Tensor) -> Tensor:
    """prox of λ‖·‖∞, by Moreau's decomposition: x − Π(x) with Π the projection onto {‖·‖₁ ≤ λ}, that is clamp(x, ±τ).

    Arguments as :func:`prox_l0`. Source: seed 003, eq. 5.11.
    """
    return _LINF(x, *_checked("prox_linf", x, weight))


def prox_linf_(x: Tensor, weight: float | Tensor) -> Tensor:
    """In-place :func:`prox_linf`; returns ``x``."""
    return _LINF.in_place(x, *_checked("prox_linf_", x, weight))


def prox_l0_group(x: Tensor, weight: float | Tensor, by: str = "l2") -> Tensor:
    """Hard thresholding of whole pixels: a pixel (the C values at one place) is kept, or all of it is zeroed.

    by="l2" is the exact prox of λ‖·‖₀,G, with ‖x‖₀,G the number of pixels that are not zero. The objective is a sum
    over pixels, and for one pixel g the minimum over u_g ≠ 0 of λ + ½‖u_g − x_g‖² is λ, at u_g = x_g, while u_g = 0
    costs ½‖x_g‖²: so x_g is kept iff ½‖x_g‖₂² > λ, that is ‖x_g‖₂ > √(2λ). by="max" keeps x_g iff max |x_g| > √(2λ), as
    seed 003 has it; the two agree for C = 1.

    Args:
        x: (N, C, …).
        weight: λ >= 0; a number or (N,).
        by: "l2" or "max".

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: dtype not supported.
        ValueError: bad ``weight`` or ``by``, or fewer than three dimensions.

    Source: seed 003, eq. 5.15–5.16 (corrected).
    """
    return _L0_GROUP(x, *_group_arguments("prox_l0_group", x, weight, by))


def prox_l0_group_(x: Tensor, weight: float | Tensor, by: str = "l2") -> Tensor:
    """In-place :func:`prox_l0_group`; returns ``x``."""
    return _L0_GROUP.in_place(x, *_group_arguments("prox_l0_group_", x, weight, by))


def _group_arguments(name: str, x: Tensor, weight: float | Tensor, by: str) -> tuple[float, Tensor | None, int, int]:
    if by not in ("l2", "max"):
        raise ValueError(f'{name}: by: expected "l2" or "max", got {by!r}')
    return (*_checked(name, x, weight), channels_of(name, x, "pixel"), int(by == "max"))


__all__ = [
    "prox_l0",
    "prox_l0_",
    "prox_l0_group",
    "prox_l0_group_",
    "prox_l1",
    "prox_l1_",
    "prox_l2",
    "prox_l2_",
    "prox_linf",
    "prox_linf_",
]

"""Projections of rows onto norm balls, spheres and the simplex.

Dimension 0 is the batch and all others together are one row; a 1-D tensor is one row. A radius is a number >= 0, or a
tensor with one value a row. Each function costs one read and one write of its data; the searches run on data that is on
chip. Where a row has NaN or ±Inf, or its radius is negative or NaN, the result of that row is NaN (the linf ball clamps
element by element, so there ±Inf becomes ±radius). float32, float64, float16 and bfloat16; differentiable in ``x``.
"""

from __future__ import annotations

import math

from torch import Tensor

from pyrobust.ops import _reference as ref
from pyrobust.ops import _vjp as vjp
from pyrobust.ops._register import RowOp, channels_of, check_like, check_rows, split_scalar

_SIMPLEX = RowOp("project_simplex", "float radius, Tensor? radii", ref.project_simplex, vjp.project_simplex)
_L1 = RowOp("project_l1_ball", "float radius, Tensor? radii", ref.project_l1_ball, vjp.project_l1_ball)
_L2 = RowOp("project_l2_ball", "float radius, Tensor? radii", ref.project_l2_ball, vjp.project_l2_ball)
_LINF = RowOp("project_linf_ball", "float radius, Tensor? radii", ref.project_linf_ball, vjp.project_linf_ball)
_L0 = RowOp(
    "project_l0_ball", "float k, Tensor? ks, int channels", ref.project_l0_ball, vjp.project_l0_ball, channels=2
)
_L1_BOX = RowOp(
    "project_l1_box",
    "Tensor center, float radius, Tensor? radii, float low, float high",
    ref.project_l1_box,
    vjp.project_l1_box,
)
_SPHERE = RowOp(
    "project_lp_sphere", "float radius, Tensor? radii, float p", ref.project_lp_sphere, vjp.project_lp_sphere
)


def _checked(op: RowOp, x: Tensor, radius: float | Tensor) -> tuple[float, Tensor | None]:
    check_rows(op.name, x)
    return split_scalar(op.name, "radius", radius, x)


def project_simplex(x: Tensor, radius: float | Tensor = 1.0) -> Tensor:
    """Project each row onto the simplex {y : y ≥ 0, Σ y = radius}: y = (x − τ)₊ with τ such that Σ y = radius.

    Args:
        x: (N, …) or (D,).
        radius: sum of the result, >= 0; a number or (N,).

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: dtype not supported.
        ValueError: negative or NaN ``radius``, or its shape or device does not fit.

    Source: Duchi et al. 2008, fig. 1; the search is Michelot's (1986), O(n) passes, no sort.
    """
    return _SIMPLEX(x, *_checked(_SIMPLEX, x, radius))


def project_simplex_(x: Tensor, radius: float | Tensor = 1.0) -> Tensor:
    """In-place :func:`project_simplex`; returns ``x``."""
    return _SIMPLEX.in_place(x, *_checked(_SIMPLEX, x, radius))


def project_l1_ball(x: Tensor, radius: float | Tensor) -> Tensor:
    """Project each row onto {y : ‖y‖₁ ≤ radius}: y = sign(x) (|x| − τ)₊, τ = 0 inside the ball.

    Args:
        x: (N, …) or (D,).
        radius: >= 0; a number or (N,).

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: dtype not supported.
        ValueError: negative or NaN ``radius``, or its shape or device does not fit.

    Source: Duchi et al. 2008; Condat 2016 for the search. Used by seed 003, eq. 5.11.
    """
    return _L1(x, *_checked(_L1, x, radius))


def project_l1_ball_(x: Tensor, radius: float | Tensor) -> Tensor:
    """In-place :func:`project_l1_ball`; returns ``x``."""
    return _L1.in_place(x, *_checked(_L1, x, radius))


def project_l2_ball(x: Tensor, radius: float | Tensor) -> Tensor:
    """Project each row onto {y : ‖y‖₂ ≤ radius}: y = x · min(1, radius / ‖x‖₂). Arguments as
    :func:`project_l1_ball`."""
    return _L2(x, *_checked(_L2, x, radius))


def project_l2_ball_(x: Tensor, radius: float | Tensor) -> Tensor:
    """In-place :func:`project_l2_ball`; returns ``x``."""
    return _L2.in_place(x, *_checked(_L2, x, radius))


def project_linf_ball(x: Tensor, radius: float | Tensor) -> Tensor:
    """Project each row onto {y : ‖y‖∞ ≤ radius}: y = clamp(x, ±radius). Arguments as :func:`project_l1_ball`."""
    return _LINF(x, *_checked(_LINF, x, radius))


def project_linf_ball_(x: Tensor, radius: float | Tensor) -> Tensor:
    """In-place :func:`project_linf_ball`; returns ``x``."""
    return _LINF.in_place(x, *_checked(_LINF, x, radius))


def project_l0_ball(x: Tensor, k: float | Tensor, grouping: str = "pixel") -> Tensor:
    """Project each row onto {y : at most k pixels (or values) are not zero}: the k of the largest l2 norm are kept.

    Args:
        x: (N, C, …) for grouping "pixel", any shape for "value".
        k: how many to keep, >= 0 (fractions are rounded down); a number or (N,).
        grouping: "pixel": the C values at one place count once, together; "value": each value by itself.

    Returns:
        A tensor like ``x``. Of groups that tie for the last place the first in the row are kept.

    Raises:
        TypeError: dtype not supported.
        ValueError: bad ``k`` or ``grouping``, or "pixel" with fewer than three dimensions.
    """
    return _L0(x, *_l0_arguments("project_l0_ball", x, k, grouping))


def project_l0_ball_(x: Tensor, k: float | Tensor, grouping: str = "pixel") -> Tensor:
    """In-place :func:`project_l0_ball`; returns ``x``."""
    return _L0.in_place(x, *_l0_arguments("project_l0_ball_", x, k, grouping))


def _l0_arguments(name: str, x: Tensor, k: float | Tensor, grouping: str) -> tuple[float, Tensor | None, int]:
    check_rows(name, x)
    return (*split_scalar(name, "k", k, x), channels_of(name, x, grouping))


def project_l1_box(
    x: Tensor, center: Tensor, radius: float | Tensor, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Project each row onto {y : ‖y − center‖₁ ≤ radius, low ≤ y ≤ high}, exactly.

    y = clamp(center + sign(z) (|z| − τ)₊, low, high) with z = x − center and τ ≥ 0 the smallest that meets the radius.

    Args:
        x: (N, …) or (D,).
        center: like ``x``, inside ``bounds`` (not checked on the values, which would synchronise).
        radius: >= 0; a number or (N,).
        bounds: (low, high), low < high.

    Returns:
        A tensor like ``x``; differentiable in ``x``, with ``center`` held constant.

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype, device or range does not fit.

    Source: Croce and Hein 2021 (AutoPGD l1), Proposition 2.1.
    """
    return _L1_BOX(x, *_l1_box_arguments("project_l1_box", x, center, radius, bounds))


def project_l1_box_(
    x: Tensor, center: Tensor, radius: float | Tensor, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """In-place :func:`project_l1_box`; returns ``x``."""
    return _L1_BOX.in_place(x, *_l1_box_arguments("project_l1_box_", x, center, radius, bounds))


def _l1_box_arguments(
    name: str, x: Tensor, center: Tensor, radius: float | Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, float, Tensor | None, float, float]:
    check_rows(name, x)
    check_like(name, "center", center, x)
    low, high = float(bounds[0]), float(bounds[1])
    if not low < high:
        raise ValueError(f"{name}: bounds: expected (low, high) with low < high, got {bounds}")
    center = center.detach() if center.requires_grad else center
    return (center, *split_scalar(name, "radius", radius, x), low, high)


def project_lp_sphere(x: Tensor, p: float, radius: float | Tensor = 1.0) -> Tensor:
    """A nearest point of the sphere {y : ‖y‖_p = radius} to each row.

    Outside the ball this is the projection onto the ball. Inside: p = 2 scales up; p = 1 adds (radius − ‖x‖₁) / D to
    every magnitude; p = ∞ moves the largest magnitude (the first on ties) to the radius. A zero row has many nearest
    points: for p = 2 it goes to (radius, 0, …).

    Args:
        x: (N, …) or (D,).
        p: 1, 2 or inf.
        radius: >= 0; a number or (N,).

    Returns:
        A tensor like ``x``.

    Raises:
        TypeError: dtype not supported.
        ValueError: another ``p``, or a bad ``radius``.

    Source: seed 004, eq. 9 (the projection Π onto the unit sphere of ‖·‖_p).
    """
    check_rows("project_lp_sphere", x)
    return _SPHERE(x, *split_scalar("project_lp_sphere", "radius", radius, x), sphere_norm("project_lp_sphere", p))


def sphere_norm(name: str, p: float) -> float:
    """``p`` as a float; raise ValueError unless it is 1, 2 or inf."""
    if p not in (1, 2, math.inf):
        raise ValueError(f"{name}: p: expected 1, 2 or inf, got {p!r}")
    return float(p)


__all__ = [
    "project_l0_ball",
    "project_l0_ball_",
    "project_l1_ball",
    "project_l1_ball_",
    "project_l1_box",
    "project_l1_box_",
    "project_l2_ball",
    "project_l2_ball_",
    "project_linf_ball",
    "project_linf_ball_",
    "project_lp_sphere",
    "project_simplex",
    "project_simplex_",
]

"""The proximal operator of the total variation of images, plane by plane."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyrobust.ops._native import DTYPE_CODES, ROW_DTYPES, native
from pyrobust.ops._register import RowOp, check_rows, register, row_shape, split_scalar

_CHECK_EVERY = 8  # steps between looks at the duality gap, as in total_variation.cuh


def _differences(u: Tensor) -> Tensor:
    """Du = (u[i, j] − u[i + 1, j], u[i, j] − u[i, j + 1]) of planes (P, H, W), zero past the border: (2, P, H, W)."""
    d = u.new_zeros(2, *u.shape)
    d[0, :, :-1] = u[:, :-1] - u[:, 1:]
    d[1, :, :, :-1] = u[:, :, :-1] - u[:, :, 1:]
    return d


def _adjoint(g: Tensor) -> Tensor:
    """Dᵀg."""
    out = g[0] + g[1]
    out[:, 1:] -= g[0, :, :-1]
    out[:, :, 1:] -= g[1, :, :, :-1]
    return out


def _length(g: Tensor, isotropic: int) -> Tensor:
    """|g| at each place, by which the projection shortens it."""
    return g.square().sum(0, keepdim=True).sqrt() if isotropic else g.abs()


def _duality_gap(x: Tensor, g: Tensor, lam: Tensor, isotropic: int) -> tuple[Tensor, Tensor]:
    """λ TV(u) − ⟨Du, g⟩ and λ TV(u) + ½ ‖u − x‖² at u = x − Dᵀg, per plane."""
    u = x - _adjoint(g)
    d = _differences(u)
    cost = lam * _length(d, isotropic).sum(0)
    gap = (cost - (d * g).sum(0)).clamp(min=0)
    return gap.sum((1, 2)), (cost + (u - x).square() / 2).sum((1, 2))


def _iterate(
    x: Tensor, lam: Tensor, steps: int, tolerance: float, isotropic: int, tangent: Tensor | None = None
) -> Tensor:
    """u = x − Dᵀg of (planes, H, W) after the fast gradient projection of g, for lam (planes, 1, 1) > 0.

    With ``tangent``, the derivative of u in that direction of x, carried along with the iterates.
    """
    g = before = x.new_zeros(2, *x.shape)
    dg = dbefore = torch.zeros_like(g)
    t, beta = x.new_ones(len(x), 1, 1), x.new_zeros(len(x), 1, 1)
    active = torch.ones_like(t, dtype=torch.bool)
    for step in range(steps):
        if step % _CHECK_EVERY == 0:
            gap, value = _duality_gap(x, g, lam, isotropic)
            active &= (gap > tolerance * value).reshape(-1, 1, 1)
            if not active.any():
                break
        r = g + beta * (g - before)
        moved = r + _differences(x - _adjoint(r)) / 8
        length = _length(moved, isotropic)
        new = moved * (lam / length.clamp(min=lam))
        if tangent is not None:
            dr = dg + beta * (dg - dbefore)
            dmoved = dr + _differences(tangent - _adjoint(dr)) / 8
            inside = length <= lam
            radial = (moved * dmoved).sum(0, keepdim=True) if isotropic else moved * dmoved
            dnew = torch.where(inside, dmoved, lam / length * (dmoved - moved * (radial / length.square())))
            dg, dbefore = torch.where(active, dnew, dg), torch.where(active, dg, dbefore)
        uphill = ((r - new) * (new - g)).sum((0, 2, 3)).reshape(-1, 1, 1) > 0
        t = torch.where(uphill, 1, t)
        t_next = (1 + (1 + 4 * t * t).sqrt()) / 2
        beta, t = torch.where(active, (t - 1) / t_next, 0), t_next
        g, before = torch.where(active, new, g), torch.where(active, g, before)
    return x - _adjoint(g) if tangent is None else tangent - _adjoint(dg)


def _planes(
    x: Tensor, weight: float, weights: Tensor | None, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Planes (P, H, W) scaled to a largest magnitude in [1, 2); weights, scales and which are undefined (P, 1, 1)."""
    planes = x.to(ROW_DTYPES[x.dtype]).reshape(-1, height, width)
    if weights is None:
        lam = planes.new_full((len(planes), 1, 1), weight)
    else:
        lam = weights.repeat_interleave(len(planes) // len(x)).reshape(-1, 1, 1)
    most = planes.abs().amax((1, 2), keepdim=True)
    bad = ~(most.isfinite() & (lam >= 0))
    scale = torch.where(most > 0, torch.ldexp(torch.ones_like(most), torch.frexp(most).exponent - 1), 1)
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    planes, lam = torch.where(bad, 0, planes / scale), torch.where(bad, 0, lam / scale).clamp(max=2.0**40)
    return planes, lam, scale, bad


def _reference(
    x: Tensor,
    weight: float,
    weights: Tensor | None,
    height: int,
    width: int,
    steps: int,
    tolerance: float,
    isotropic: int,
) -> Tensor:
    planes, lam, scale, bad = _planes(x, weight, weights, height, width)
    u = planes.clone()
    free = (lam > 0).flatten()
    u[free] = _iterate(planes[free], lam[free], steps, tolerance, isotropic)
    return (u * scale).masked_fill(bad, math.nan).reshape(x.shape)


def _tangent(
    grad: Tensor,
    x: Tensor,
    weight: float,
    weights: Tensor | None,
    height: int,
    width: int,
    steps: int,
    tolerance: float,
    isotropic: int,
) -> Tensor:
    flat = x.reshape(row_shape(x))
    planes, lam, _, bad = _planes(flat, weight, weights, height, width)
    direction = grad.to(planes.dtype).reshape(planes.shape)
    out = direction.clone()
    free = (lam > 0).flatten()
    out[free] = _iterate(planes[free], lam[free], steps, tolerance, isotropic, direction[free])
    return out.masked_fill(bad, math.nan).reshape(x.shape).to(x.dtype)


_ARGS = "float weight, Tensor? weights, int height, int width, int steps, float tolerance, int isotropic"
register(
    "prox_tv_tangent",
    f"(Tensor grad, Tensor x, {_ARGS}) -> Tensor",
    run=_tangent,
    reference=_tangent,
    fake=lambda grad, x, *_: torch.empty(x.shape, dtype=x.dtype, device=x.device),
)


def _vjp(grad: Tensor, x: Tensor, y: Tensor, *args: Any) -> Tensor:
    """The Jacobian of a prox, the second derivative of a convex function, is symmetric: Jᵀ grad = J grad."""
    return torch.ops.pyrobust.prox_tv_tangent(grad, x, *args)


class _TotalVariation(RowOp):
    """A row is a sample, whose planes the kernel takes one by one, with a workspace where they outgrow a block."""

    def _launch(self, out: Tensor, x: Tensor, rest: tuple[Any, ...]) -> None:
        rows, cols = row_shape(x)
        if cols == 0:
            return
        weight, weights, height, width, steps, tolerance, isotropic = rest
        code, device, stream, space = DTYPE_CODES[x.dtype], -1, 0, None
        if x.is_cuda:
            device = x.device.index
            stream = torch._C._cuda_getCurrentRawStream(device)
            size = native.prox_tv_space(height, width, code) * (rows * cols // (height * width))
            space = torch.empty(size, dtype=ROW_DTYPES[x.dtype], device=x.device) if size else None
        values = weight if weights is None else weights.data_ptr()
        fields = (values, height, width, steps, tolerance, isotropic, 0 if space is None else space.data_ptr())
        native.prox_tv(rows, cols, code, device, stream, out.data_ptr(), x.data_ptr(), *fields)


_TV = _TotalVariation("prox_tv", _ARGS, _reference, _vjp)


def _arguments(
    name: str, x: Tensor, weight: float | Tensor, steps: int, tolerance: float, isotropic: bool
) -> tuple[float, Tensor | None, int, int, int, float, int]:
    check_rows(name, x)
    if x.ndim != 4:
        raise ValueError(f"{name}: x: expected images (N, C, H, W), got shape {tuple(x.shape)}")
    if steps < 1:
        raise ValueError(f"{name}: steps: expected an integer >= 1, got {steps}")
    if not tolerance >= 0:
        raise ValueError(f"{name}: tolerance: expected a number >= 0, got {tolerance}")
    number, values = split_scalar(name, "weight", weight, x)
    return number, values, x.shape[2], x.shape[3], int(steps), float(tolerance), int(isotropic)


def prox_tv(
    x: Tensor, weight: float | Tensor, steps: int = 1000, isotropic: bool = True, tolerance: float = 1e-4
) -> Tensor:
    """prox of λ TV on every plane of a batch of images: argmin_u λ TV(u) + ½ ‖u − x‖₂².

    With a = u[i + 1, j] − u[i, j] and b = u[i, j + 1] − u[i, j], zero past the border, TV(u) = Σ √(a² + b²) (isotropic)
    or Σ |a| + |b| (anisotropic).

    The iteration is the fast gradient projection on the dual, u = x − Dᵀg with |g| <= λ, restarted where the momentum
    points uphill. Every 8 steps a plane's duality gap λ TV(u) − ⟨Du, g⟩ is compared with ``tolerance`` times its
    objective F(u) = λ TV(u) + ½ ‖u − x‖², and the plane is done where it is no larger. Then, with u* the minimiser,
    F(u) − F(u*) <= tolerance F(u) and ‖u − u*‖₂² <= tolerance F(u). On pictures in [0, 1] of 28² to 224² pixels the
    default tolerance takes about 25 to 90 steps for λ = 0.01, 100 to 250 for λ = 0.1; for λ = 1, which leaves a few
    flat patches, 220 to 950. In float32 a gap below about 1e-6 F(u) cannot be told from rounding.

    Args:
        x: (N, C, H, W).
        weight: λ >= 0; a number or (N,). λ = ∞ stands for the mean of the plane.
        steps: most steps to take, >= 1.
        isotropic: which total variation.
        tolerance: of the duality gap relative to the objective, >= 0; 0 takes all ``steps``.

    Returns:
        A tensor like ``x``. A plane with NaN or ±Inf becomes NaN, and so does a sample whose weight is negative or NaN.

        Differentiable in ``x``, once. The Jacobian of a proximal operator is symmetric, so its product with a gradient
        is the derivative of the iterates in that direction, carried along with them in plain PyTorch, in memory that
        does not grow with the steps. It is exact in the limit; after few steps it is as far from it as they are.

    Raises:
        TypeError: dtype not supported.
        ValueError: not images, ``steps`` < 1, negative ``tolerance``, or a bad ``weight``.

    Source: Beck & Teboulle 2009, "Fast gradient-based algorithms for constrained total variation image denoising", §4
    (seed 003, §5.3.5); O'Donoghue & Candès 2015, §3.2, for the restart.
    """
    return _TV(x, *_arguments("prox_tv", x, weight, steps, tolerance, isotropic))


def prox_tv_(
    x: Tensor, weight: float | Tensor, steps: int = 1000, isotropic: bool = True, tolerance: float = 1e-4
) -> Tensor:
    """In-place :func:`prox_tv`; returns ``x``."""
    return _TV.in_place(x, *_arguments("prox_tv_", x, weight, steps, tolerance, isotropic))


__all__ = ["prox_tv", "prox_tv_"]

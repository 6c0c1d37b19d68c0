"""The ops in plain PyTorch: the oracle that every backend is compared with in float64, and the path of devices without
kernels.

Rows are flattened to (N, D). A value a row comes as the pair (number, tensor or None) of the schemas.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def column(number: float, rows: Tensor | None, x: Tensor) -> Tensor:
    """The value of each row, as (N, 1)."""
    if rows is None:
        return torch.full((len(x), 1), number, dtype=x.dtype, device=x.device)
    return rows.to(x.dtype).reshape(-1, 1)


def _bad(x: Tensor, value: Tensor) -> Tensor:
    """Rows whose projection is undefined, as (N, 1)."""
    return ~(x.isfinite().all(1, keepdim=True) & (value >= 0))


def simplex_threshold(v: Tensor, radius: Tensor) -> Tensor:
    """τ with Σ (v − τ)₊ = radius, by sorting (Duchi et al. 2008, fig. 1)."""
    ordered = v.sort(1, descending=True).values
    candidates = (ordered.cumsum(1) - radius) / torch.arange(1, v.shape[1] + 1, dtype=v.dtype, device=v.device)
    count = (ordered > candidates).sum(1, keepdim=True).clamp(min=1)
    return candidates.gather(1, count - 1)


def l1_threshold(x: Tensor, radius: Tensor) -> Tensor:
    """τ of the projection onto the l1 ball: 0 inside."""
    inside = x.abs().sum(1, keepdim=True) <= radius
    return torch.where(inside, torch.zeros_like(radius), simplex_threshold(x.abs(), radius))


def project_simplex(x: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    r = column(radius, radii, x)
    return (x - simplex_threshold(x, r)).clamp(min=0).masked_fill(_bad(x, r), math.nan)


def project_l1_ball(x: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    r = column(radius, radii, x)
    return (x.abs() - l1_threshold(x, r)).clamp(min=0).copysign(x).masked_fill(_bad(x, r), math.nan)


def project_l2_ball(x: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    r, norm = column(radius, radii, x), x.norm(dim=1, keepdim=True)
    return (x * torch.where(norm <= r, torch.ones_like(norm), r / norm)).masked_fill(_bad(x, r), math.nan)


def project_linf_ball(x: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    r = column(radius, radii, x)
    return torch.where(r >= 0, torch.minimum(torch.maximum(x, -r), r), math.nan)


def group_norms(x: Tensor, channels: int) -> Tensor:
    """l2 norm of each position over the planes of a row, (N, D / channels)."""
    return x.reshape(len(x), channels, -1).norm(dim=1)


def project_l0_ball(x: Tensor, k: float, ks: Tensor | None, channels: int) -> Tensor:
    keep = column(k, ks, x)
    order = group_norms(x, channels).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=x.device).expand_as(order))
    kept = (rank < keep.floor()).repeat(1, channels)
    return torch.where(kept, x, 0).masked_fill(_bad(x, keep), math.nan)


def project_l1_box(x: Tensor, center: Tensor, radius: float, radii: Tensor | None, low: float, high: float) -> Tensor:
    """By sorting the kinks of Σ min((|z| − τ)₊, room), which is linear in τ between them."""
    r, z = column(radius, radii, x), x - center
    size, room = z.abs(), torch.where(z > 0, high - center, center - low)

    def total(tau: Tensor) -> Tensor:  # (N, T) levels -> (N, T) sums
        moved = (size.unsqueeze(1) - tau.unsqueeze(2)).clamp(min=0)
        return torch.minimum(moved, room.unsqueeze(1)).sum(2)

    kinks = torch.cat([torch.zeros_like(r), (size - room).clamp(min=0), size], 1).sort(1).values
    sums = torch.cat([total(part) for part in kinks.split(64, 1)], 1)
    after = (sums > r).sum(1, keepdim=True).clamp(1, kinks.shape[1] - 1)  # the first kink at or below the radius
    t0, t1 = kinks.gather(1, after - 1), kinks.gather(1, after)
    s0, s1 = sums.gather(1, after - 1), sums.gather(1, after)
    tau = torch.where(s0 > s1, t0 + (s0 - r) / (s0 - s1) * (t1 - t0), t0)
    tau = torch.where(sums[:, :1] <= r, torch.zeros_like(tau), tau)
    y = (center + (size - tau).clamp(min=0).copysign(z)).clamp(low, high)
    return y.masked_fill(_bad(z, r), math.nan)


def project_lp_sphere(x: Tensor, radius: float, radii: Tensor | None, p: float) -> Tensor:
    r, bad = column(radius, radii, x), None
    bad = _bad(x, r)
    if p == 2:
        norm = x.norm(dim=1, keepdim=True)
        y = x * torch.where(norm > 0, r / norm, 0)
        y[:, :1] += torch.where(norm > 0, 0, r)
    elif p == 1:
        missing = r - x.abs().sum(1, keepdim=True)
        inside = x + (missing / x.shape[1]).expand_as(x).copysign(x)
        y = torch.where(missing >= 0, inside, project_l1_ball(x, radius, radii))
    else:
        y = torch.minimum(torch.maximum(x, -r), r)
        place = x.abs().argmax(1, keepdim=True)
        largest = x.gather(1, place)
        y = y.scatter(1, place, torch.where(largest.abs() < r, r.copysign(largest), y.gather(1, place)))
    return y.masked_fill(bad, math.nan)


def prox_l0(x: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    lam = column(weight, weights, x)
    kept = torch.where(x.abs() <= (2 * lam).sqrt(), 0, x)
    return torch.where(lam >= 0, kept, math.nan)


def prox_l1(x: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    lam = column(weight, weights, x)
    return torch.where(lam >= 0, (x.abs() - lam).clamp(min=0).copysign(x), math.nan)


def prox_l2(x: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    lam, norm = column(weight, weights, x), x.norm(dim=1, keepdim=True)
    factor = torch.where(norm > lam, (norm - lam) / norm, 0)
    return (x * factor).masked_fill(_bad(x, lam), math.nan)


def prox_linf(x: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    return x - project_l1_ball(x, weight, weights)


def prox_l0_group(x: Tensor, weight: float, weights: Tensor | None, channels: int, by_max: int) -> Tensor:
    lam = column(weight, weights, x)
    size = x.abs().reshape(len(x), channels, -1).amax(1) if by_max else group_norms(x, channels)
    kept = ~(size <= (2 * lam).sqrt())
    return torch.where(lam >= 0, torch.where(kept.repeat(1, channels), x, 0), math.nan)


def lp_norm(x: Tensor, p: float, channels: int) -> Tensor:
    if p == 0:
        size = x.abs().reshape(len(x), channels, -1).amax(1)
        return torch.where(size == 0, 0, torch.where(size > 0, 1, size)).sum(1)
    return torch.linalg.vector_norm(x, p, dim=1)


def dual_normalize(z: Tensor, p: float) -> Tensor:
    if p == math.inf:
        return torch.where(z.isnan(), z, z.sign())
    most = z.abs().amax(1, keepdim=True)
    zero = most == 0
    if p == 1:
        largest = (z.abs() == most).to(z.dtype)
        v = largest / largest.sum(1, keepdim=True)
    else:
        q = p / (p - 1)
        scaled = z.abs() / most
        v = scaled.pow(q - 1) / scaled.pow(q).sum(1, keepdim=True).pow((q - 1) / q)
        v = torch.where(z == 0, 0, v)
    v = torch.where(zero, torch.zeros_like(v), v.to(z.dtype).copysign(z))
    return v.masked_fill(~z.isfinite().all(1, keepdim=True), math.nan)


def power_iteration_step(z: Tensor, previous: Tensor | None, p: float, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    q = 1.0 if p == math.inf else (math.inf if p == 1 else p / (p - 1))
    value = lp_norm(z, q, 1)
    if alpha == math.inf:
        direction = dual_normalize(z, p)
        if p == math.inf:
            direction = direction.masked_fill(~z.isfinite().all(1, keepdim=True), math.nan)
    else:
        assert previous is not None
        direction = project_lp_sphere(previous + alpha * z, 1.0, None, p)
    change = torch.full_like(value, math.nan) if previous is None else (direction - previous).norm(dim=1)
    return direction, value, change

"""Vector-Jacobian products of the ops: vjp(grad, x, y, *args), with y the result; plain PyTorch, so differentiable once
more.

The projections are piecewise smooth; at a kink the derivative of one of the pieces is returned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust.ops._reference import column
from pyrobust.ops._register import row_shape


def _rows(x: Tensor, *tensors: Tensor) -> list[Tensor]:
    """All tensors as (rows, elements) of x."""
    shape = row_shape(x)
    return [t.reshape(shape) for t in tensors]


def _on_face(grad: Tensor, sign: Tensor) -> Tensor:
    """Of grad the part within the face Σ sign · y = const, on the support of sign: grad − sign ⟨sign, grad⟩ /
    |support|."""
    count = sign.abs().sum(1, keepdim=True).clamp(min=1)
    return sign.abs() * grad - sign * ((sign * grad).sum(1, keepdim=True) / count)


def project_simplex(grad: Tensor, x: Tensor, y: Tensor, *_: object) -> Tensor:
    g, result = _rows(x, grad, y)
    return _on_face(g, (result > 0).to(g.dtype)).reshape(x.shape)


def project_l1_ball(grad: Tensor, x: Tensor, y: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    g, flat, result = _rows(x, grad, x, y)
    inside = flat.abs().sum(1, keepdim=True) <= column(radius, radii, flat)
    return torch.where(inside, g, _on_face(g, result.sign())).reshape(x.shape)


def project_l2_ball(grad: Tensor, x: Tensor, y: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    g, flat = _rows(x, grad, x)
    r, norm = column(radius, radii, flat), flat.norm(dim=1, keepdim=True)
    unit = flat / norm.clamp(min=torch.finfo(flat.dtype).tiny)
    tangent = r / norm * (g - unit * (unit * g).sum(1, keepdim=True))
    return torch.where(norm <= r, g, tangent).reshape(x.shape)


def project_linf_ball(grad: Tensor, x: Tensor, y: Tensor, radius: float, radii: Tensor | None) -> Tensor:
    g, flat = _rows(x, grad, x)
    return torch.where(flat.abs() <= column(radius, radii, flat), g, 0).reshape(x.shape)


def mask(grad: Tensor, x: Tensor, y: Tensor, *_: object) -> Tensor:
    """Of an op that keeps or zeroes each value: where it kept."""
    return torch.where(y != 0, grad, 0)


def _groups_kept(tensor: Tensor, channels: int) -> Tensor:
    """Which places have a value that is not zero, (N, D / channels)."""
    return (tensor.reshape(len(tensor), channels, -1) != 0).any(1)


def prox_l0_group(
    grad: Tensor, x: Tensor, y: Tensor, weight: float, weights: Tensor | None, channels: int, by_max: int
) -> Tensor:
    """Where the group was kept, the zeros in it included."""
    g, result = _rows(x, grad, y)
    return torch.where(_groups_kept(result, channels).repeat(1, channels), g, 0).reshape(x.shape)


def project_l0_ball(grad: Tensor, x: Tensor, y: Tensor, k: float, ks: Tensor | None, channels: int) -> Tensor:
    """Where the group was kept; everywhere in a row with fewer than k groups that are not zero, since one more would be
    kept."""
    g, flat, result = _rows(x, grad, x, y)
    room = _groups_kept(flat, channels).sum(1, keepdim=True) < column(k, ks, flat).floor()
    return torch.where(room | _groups_kept(result, channels).repeat(1, channels), g, 0).reshape(x.shape)


def project_l1_box(
    grad: Tensor, x: Tensor, y: Tensor, center: Tensor, radius: float, radii: Tensor | None, low: float, high: float
) -> Tensor:
    g, flat, result, start = _rows(x, grad, x, y, center)
    free = (result > low) & (result < high)
    clamped = flat.clamp(low, high)
    inside = (clamped - start).abs().sum(1, keepdim=True) <= column(radius, radii, flat)
    sign = torch.where(free, (result - start).sign(), 0)
    return torch.where(inside, torch.where(clamped == flat, g, 0), _on_face(g, sign)).reshape(x.shape)


def project_lp_sphere(grad: Tensor, x: Tensor, y: Tensor, radius: float, radii: Tensor | None, p: float) -> Tensor:
    g, flat, result = _rows(x, grad, x, y)
    r = column(radius, radii, flat)
    if p == 2:
        norm = flat.norm(dim=1, keepdim=True)
        unit = flat / norm.clamp(min=torch.finfo(flat.dtype).tiny)
        return torch.where(norm > 0, r / norm * (g - unit * (unit * g).sum(1, keepdim=True)), 0).reshape(x.shape)
    if p == 1:
        outside = flat.abs().sum(1, keepdim=True) > r
        sign = torch.where(flat < 0, -1, 1).to(g.dtype)
        inward = g - sign * (sign * g).mean(1, keepdim=True)
        return torch.where(outside, _on_face(g, result.sign()), inward).reshape(x.shape)
    return torch.where((flat == result) & (flat.abs() <= r), g, 0).reshape(x.shape)


def prox_l1(grad: Tensor, x: Tensor, y: Tensor, *_: object) -> Tensor:
    return torch.where(y != 0, grad, 0)


def prox_l2(grad: Tensor, x: Tensor, y: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    g, flat = _rows(x, grad, x)
    lam, norm = column(weight, weights, flat), flat.norm(dim=1, keepdim=True)
    unit = flat / norm.clamp(min=torch.finfo(flat.dtype).tiny)
    share = lam / norm
    kept = (1 - share) * g + share * unit * (unit * g).sum(1, keepdim=True)
    return torch.where(norm > lam, kept, 0).reshape(x.shape)


def prox_linf(grad: Tensor, x: Tensor, y: Tensor, weight: float, weights: Tensor | None) -> Tensor:
    return grad - project_l1_ball(grad, x, x - y, weight, weights)


def lp_norm(grad: Tensor, x: Tensor, p: float) -> Tensor:
    """The gradient of ‖x‖_p is the dual direction of x for the ball of the conjugate norm; 0 at x = 0 and for p = 0."""
    if p == 0:
        return torch.zeros_like(x)
    from pyrobust.ops.norms import dual_normalize

    (flat,) = _rows(x, x)
    conjugate = math.inf if p == 1 else (1.0 if p == math.inf else 2.0)
    return (grad.reshape(-1, 1).to(x.dtype) * dual_normalize(flat, conjugate)).reshape(x.shape)


def dual_normalize(grad: Tensor, z: Tensor, v: Tensor, p: float) -> Tensor:
    """With q conjugate to p and N = ‖z‖_q: (q − 1) (|z|^(q−2) N^(1−q) grad − v ⟨v, grad⟩ / N); 0 for p = 1 and inf."""
    if p in (1, math.inf):
        return torch.zeros_like(z)
    g, flat, direction = _rows(z, grad, z, v)
    q = p / (p - 1)
    norm = torch.linalg.vector_norm(flat, q, dim=1, keepdim=True)
    scaled = flat.abs() / norm
    curve = torch.where((flat == 0) & (q < 2), 0, scaled.pow(q - 2))
    product = (q - 1) / norm * (curve * g - direction * (direction * g).sum(1, keepdim=True))
    return torch.where(norm > 0, product, 0).reshape(z.shape)

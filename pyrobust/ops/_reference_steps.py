"""The fused attack steps in plain PyTorch: their oracle, and their path on devices without kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust.ops import _reference as ref
from pyrobust.ops._native import ROW_DTYPES
from pyrobust.ops._register import row_shape


def pgd_step(
    adv: Tensor,
    grad: Tensor,
    inputs: Tensor,
    eps: float,
    eps_rows: Tensor | None,
    step_size: float,
    step_rows: Tensor | None,
    p: float,
    sparsity: float,
    low: float,
    high: float,
) -> None:
    shape = row_shape(adv)
    a, g, x = (t.reshape(shape).to(ROW_DTYPES[adv.dtype]) for t in (adv, grad, inputs))
    step = ref.column(step_size, step_rows, a)
    if p == 1 and sparsity > 0:
        k = max(1, int(sparsity * shape[1] + 0.5))
        moved = g.abs() >= g.abs().topk(k, dim=1).values[:, -1:].clamp(min=torch.finfo(a.dtype).tiny)
        direction = torch.where(moved, g.sign(), 0) / moved.sum(1, keepdim=True).clamp(min=1)
    else:
        direction = ref.dual_normalize(g, p)
    target = a + step * direction
    if p == math.inf:
        result = x + ref.project_linf_ball(target - x, eps, eps_rows)
    elif p == 2:
        result = x + ref.project_l2_ball(target - x, eps, eps_rows)
    else:
        result = ref.project_l1_box(target, x, eps, eps_rows, low, high)
    adv.copy_(torch.where(step >= 0, result.clamp(low, high), math.nan).reshape(adv.shape))


def attack_seed(
    logits: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    best_class: Tensor,
    distance: Tensor,
    best_distance: Tensor,
    targeted: bool,
    follow: bool,
) -> tuple[Tensor, Tensor]:
    z, y = logits.to(ROW_DTYPES[logits.dtype]), labels.unsqueeze(1)
    top, place = z.scatter(1, y, -math.inf).max(1)
    margin = z.gather(1, y).squeeze(1) - top
    if targeted:
        margin = -margin
    best_class.copy_(torch.where((margin < 0) & (distance < best_distance), place, best_class))
    target = best_class if follow else (place if targets is None else targets)
    up = torch.where(margin < 0, 0.0, -1.0 if targeted else 1.0).to(logits.dtype).unsqueeze(1)
    seed = torch.zeros_like(logits)
    seed.scatter_add_(1, y, up)
    seed.scatter_add_(1, target.unsqueeze(1), -up)
    return seed, margin


def _prox(prox: int, r: Tensor, w: Tensor, rho: Tensor, channels: int) -> Tensor:
    """argmin_u ½ Σ w (u − r)² + ρ ‖u‖, by bisection where there is no closed form."""
    if prox == 0:
        return r
    if prox == 2:
        return (r.abs() - rho / w).clamp(min=0).copysign(r)
    if prox == 4:
        size = (w * r.square()).reshape(len(r), channels, -1).sum(1)
        return torch.where((size <= 2 * rho).repeat(1, channels), 0, r)
    low, high = torch.zeros_like(rho), (r.abs().amax(1, keepdim=True) if prox == 3 else r.norm(dim=1, keepdim=True))
    for _ in range(200):
        middle = (low + high) / 2
        if prox == 3:
            inside = (w * (r.abs() - middle).clamp(min=0)).sum(1, keepdim=True) > rho
        else:
            inside = (w * r / (w * middle + rho)).square().sum(1, keepdim=True) > 1
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    if prox == 3:
        return torch.minimum(torch.maximum(r, -high), high)
    return r * (w * high / (w * high + rho))


def primal_dual_step(
    adv: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, best: Tensor, best_distance: Tensor, distance: Tensor, dual: Tensor,
    dual_average: Tensor, inputs: Tensor, grad: Tensor, margin: Tensor, channels: int, prox: int, adaptive: int,
    constants: list[float],
) -> None:  # fmt: skip
    step_size, normalize, beta1, beta2, correction1, correction2, dual_step, limit, momentum, damping, low, high = (
        constants
    )
    shape, width = row_shape(adv), high - low
    a, x, g = (t.reshape(shape).to(ROW_DTYPES[adv.dtype]) for t in (adv, inputs, grad))
    better = (margin < 0) & (distance < best_distance)
    best.copy_(torch.where(better.reshape(-1, *[1] * (adv.ndim - 1)), adv, best))
    rho = (dual_average / (1 - dual_average)).unsqueeze(1)
    if normalize:
        norm = torch.linalg.vector_norm(g, normalize, dim=1, keepdim=True)
        g = torch.where(norm > 0, g / norm, 0)
    if prox == 0:
        g = g + torch.where(distance > 0, rho.squeeze(1) / distance, 0).unsqueeze(1) * (a - x)
    m, v = exp_avg.reshape(shape), exp_avg_sq.reshape(shape)
    m.mul_(beta1).add_((1 - beta1) * g)
    v.mul_(beta2).add_((1 - beta2) * g * g)
    root = (v / correction2).sqrt()
    w = (root + 1e-8 if adaptive else torch.ones_like(v)) / step_size
    r = ((a - width * (m / correction1) / w).clamp(low, high) - x) / width
    if adaptive and prox != 4:
        w = (torch.maximum(root, damping * root.amax(1, keepdim=True)) + 1e-8) / step_size
    a = (x + width * _prox(prox, r, w, rho, channels)).clamp(low, high)
    moved = a - x
    norms = {0: 2.0, 1: 2.0, 2: 1.0, 3: math.inf, 4: 0.0}
    now = ref.lp_norm(moved, norms[prox], channels)
    adv.copy_(a.reshape(adv.shape))
    best_distance.copy_(torch.where(better, distance, best_distance))
    distance.copy_(now)
    moved_dual = (dual + dual_step * margin.sign()).clamp(-limit, limit)
    dual.copy_(torch.where(margin.isnan(), dual, moved_dual))
    dual_average.copy_(momentum * dual_average + (1 - momentum) * torch.sigmoid(-moved_dual))


def sigma_zero_step(
    adv: Tensor, delta: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, threshold: Tensor, distance: Tensor, inputs: Tensor,
    grad: Tensor, adversarial: Tensor, channels: int, constants: list[float],
) -> None:  # fmt: skip
    step_size, sigma, threshold_step, beta1, beta2, correction1, correction2, low, high = constants
    n, cols = row_shape(adv)
    shape, width = (n, channels, cols // channels), high - low
    x, g = (t.reshape(shape).to(ROW_DTYPES[adv.dtype]) for t in (inputs, grad))
    d, m, v = (t.reshape(shape) for t in (delta, exp_avg, exp_avg_sq))
    energy = d.square().sum(1, keepdim=True) + sigma
    g = g * width + d * (2 * sigma / shape[2]) / energy.square()
    g = g / g.abs().amax((1, 2), keepdim=True).clamp(min=1e-12)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    d = d - step_size / correction1 * m / ((v / correction2).sqrt() + 1e-8)
    d = torch.minimum(torch.maximum(d, (low - x) / width), (high - x) / width)
    tau = (threshold + threshold_step * (2 * adversarial.to(threshold.dtype) - 1)).clamp(0, 1)
    d = torch.where(d.abs().amax(1, keepdim=True) <= tau.reshape(n, 1, 1), 0, d)
    for state, new in ((delta, d), (exp_avg, m), (exp_avg_sq, v), (adv, (x + width * d).clamp(low, high))):
        state.copy_(new.reshape(state.shape))
    threshold.copy_(tau)
    distance.copy_(ref.lp_norm(adv.reshape(n, cols) - inputs.reshape(n, cols), 0.0, channels))

"""Theorem 1 of seed 004: projected gradient ascent of ‖f(x*) − f(x)‖_q beside the power method for ‖J(x)‖_{p,q}."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.analysis import cell_sizes
from pyrobust.analysis._pieces import Pattern
from pyrobust.attacks._common import rows_like
from pyrobust.training.operator_norm import PowerIteration, jacobian_product

NAMES = {1.0: "1", 2.0: "2", math.inf: "∞"}
PAIRS = [(p, q) for p in NAMES for q in NAMES]
BALLS: dict[float, Callable[..., Tensor]] = {
    1.0: ops.project_l1_ball,
    2.0: ops.project_l2_ball,
    math.inf: ops.project_linf_ball,
}
WITHIN = 0.1  # the ball's radius, of the distance to the edge of the cell along the nearest iterate


@dataclass(frozen=True)
class Agreement:
    """Of each sample, in float64.

    Attributes:
        eps: radius of the ball.
        gap: the largest ‖(xₖ − x) / ε − vₖ‖₂ / ‖vₖ‖₂ over the iterates k.
        cosine: of xₖ − x and vₖ, for the last k.
        gain: ‖f(xₖ) − f(x)‖_q / ε over ‖J(x) vₖ‖_q, for the last k.
        inside: all xₖ share the activation pattern of x.
    """

    eps: Tensor
    gap: Tensor
    cosine: Tensor
    gain: Tensor
    inside: Tensor

    def plain(self) -> dict[str, Any]:
        return {
            "gap": float(self.gap[self.inside].max()) if bool(self.inside.any()) else None,
            "cosine": float(self.cosine.median()),
            "gain": float(self.gain.median()),
            "inside": float(self.inside.double().mean()),
            "eps": float(self.eps.median()),
        }


def agreement(
    model: nn.Module, inputs: Tensor, p: float, q: float, *, ratio: float, steps: int, eps: float | None = None
) -> Agreement:
    """Both iterations from the same start.

    Args:
        model: in evaluation mode; a copy is run in float64.
        inputs: (N, …).
        p, q: of the ball and of the loss.
        ratio: α / ε, the step of the ascent over the radius of its ball.
        steps: of both.
        eps: the radius; None: `WITHIN` of the way to the edge of the cell of x, sample by sample.
    """
    model, x = copy.deepcopy(model).double().eval(), inputs.double()
    iteration = PowerIteration(model, x, p, q)
    clean = iteration.logits.detach()
    v = iteration.start(ops.sample_lp_ball(clean, 2.0, 1.0))
    powers = [v]
    for _ in range(steps):
        _, v = iteration.step(v)
        powers.append(v)
    if eps is None:
        # Sizes are in l2, along vₖ / ‖vₖ‖₂; vₖ itself has the p-norm 1.
        sizes = cell_sizes(model, x, {str(k): v for k, v in enumerate(powers)}).sizes
        edge = torch.stack([sizes[str(k)] / v.flatten(1).norm(dim=1) for k, v in enumerate(powers)]).amin(0)
        radius = WITHIN * edge
    else:
        radius = x.new_full((len(x),), eps)
    wide = rows_like(radius, x)
    with torch.no_grad(), Pattern() as at_x:
        model(x)
    moved = wide * powers[0]
    inside = torch.ones(len(x), dtype=torch.bool, device=x.device)
    gaps = []
    for power in powers[1:]:
        point = (x + moved).requires_grad_()
        loss = torch.linalg.vector_norm(model(point) - clean, q, dim=1).sum()
        (grad,) = torch.autograd.grad(loss, point)
        moved = BALLS[p](moved + ratio * wide * ops.dual_normalize(grad, p), radius)
        gaps.append(_norm(moved / wide - power) / _norm(power))
        with torch.no_grad(), Pattern() as there:
            last = model(x + moved)
        for one, other in zip(at_x.pieces, there.pieces, strict=True):
            inside &= (one == other).flatten(1).all(1)
    value = torch.linalg.vector_norm(jacobian_product(model, x, powers[-1]), q, dim=1)
    gain = torch.linalg.vector_norm(last - clean, q, dim=1) / radius / value
    cosine = (moved * powers[-1]).flatten(1).sum(1) / (_norm(moved) * _norm(powers[-1]))
    return Agreement(radius, torch.stack(gaps).amax(0), cosine, gain, inside)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)

"""Lipschitz constants in l2: a lower bound found near the data, beside an upper bound that holds everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Bounds, Model, check_bounds, check_inputs, check_logits
from pyrobust.analysis.layer_norms import LipschitzUpper, lipschitz_upper
from pyrobust.analysis.spectrum import jacobian_spectrum
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, check_positive, replace_rows_, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NARROW = 0.05  # the last gap of a pair over the first


@dataclass(frozen=True)
class LipschitzLower:
    """What :func:`lipschitz_lower` found at N samples, in float64.

    Attributes:
        at_inputs: (N,) σ₁(J(x)).
        near: (N,) the largest σ₁(J(x + z)) found with ‖z‖₂ ≤ eps; at least ``at_inputs``.
        points: (N, …) where the ascent found the steepest slope.
        eps: radius of the ball.
    """

    at_inputs: Tensor
    near: Tensor
    points: Tensor
    eps: float

    def plot(self) -> Figure:
        """σ₁ at the inputs and the largest found near them, over the samples."""
        from pyrobust.analysis._draw_spectrum import draw_lipschitz

        return draw_lipschitz(self)


@dataclass(frozen=True)
class LipschitzBounds:
    """The Lipschitz constant of f in l2 lies between the largest of ``lower.near`` and ``upper.bound``."""

    lower: LipschitzLower
    upper: LipschitzUpper

    def plot(self) -> Figure:
        """σ₁ at the inputs and the largest found near them, over the samples, beside the upper bound."""
        from pyrobust.analysis._draw_spectrum import draw_lipschitz

        return draw_lipschitz(self.lower, self.upper.bound)


def lipschitz_lower(
    model: Model,
    inputs: Tensor,
    *,
    eps: float,
    steps: int = 40,
    restarts: int = 1,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
) -> LipschitzLower:
    """max σ₁(J(x + z)) over the points of an ascent in ‖z‖₂ ≤ eps: each bounds the Lipschitz constant from below.

    σ₁ is constant in every linear piece of a ReLU network, so its gradient says nothing. That of a difference quotient does:
    with a pair a, b = Π(a + h v) and u = (f(b) − f(a)) / ‖f(b) − f(a)‖₂,

        a ← Π(a + α (J(b)ᵀu − J(a)ᵀu)),   v ← J(a)ᵀu + J(b)ᵀu, both normalised,

    Π onto ball ∩ bounds: where the pair is, the slope along v grows, and v turns to where it is steepest, as in the power
    method. h falls from eps to eps / 20. ‖Jᵀu‖₂ ≤ σ₁ comes with each pass, and says which point is kept.

    Args:
        model: from (N, …) to logits (N, K); run in evaluation mode.
        inputs: x, (N, …), inside ``bounds``.
        eps: radius of the ball, > 0, in the units of the inputs.
        steps: of each ascent, α = 2.5 · eps / steps.
        restarts: ascents, each from a random point of the ball.
        bounds: (low, high) that x + z keeps.
        batch_size: samples a pass.
        seed: of the starts; sample i depends on (seed, i) alone.
        work: progress and resume.

    Returns:
        LipschitzLower, on the CPU.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: 2 · restarts · steps forward and backward passes, and two Jacobian spectra (their largest values alone where there
        are more than 64 logits).
    Source: the definition of the constant, and seed 004, eq. 6, for v; §5.4 for σ₁ near the data.
    """
    bounds = check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_positive(eps=eps)
    check_count(steps=steps, restarts=restarts, batch_size=batch_size)
    work = work or Work()

    def compute(ids: Tensor) -> dict[str, Tensor]:
        x = inputs[ids].detach().contiguous()
        points, best = x.clone(), x.new_zeros(len(x))
        for run in range(restarts):
            a = ops.sample_lp_ball(x, 2.0, float(eps), seed=seed, sample_ids=ids, step=2 * run).add_(x).clamp_(*bounds)
            v = ops.sample_lp_ball(x, 2.0, seed=seed, sample_ids=ids, step=2 * run + 1)
            for step in range(steps):
                gap = eps * _NARROW ** (step / max(1, steps - 1))
                b = ops.pgd_step_(a.clone(), v, x, 2.0, float(eps), gap, bounds)
                at_a, at_b = _slopes(model, a, b)
                for point, slope in ((a, at_a), (b, at_b)):
                    size = ops.lp_norm(slope, 2).to(x.dtype)
                    replace_rows_(points, size > best, point)
                    best = torch.maximum(best, size)
                ops.pgd_step_(a, at_b - at_a, x, 2.0, float(eps), 2.5 * eps / steps, bounds)
                v = at_a + at_b
        return {"points": points}

    with undisturbed(model):
        with torch.no_grad():
            k = None if check_logits(model(inputs[:1]), 1) <= 64 else 1
        parts = torch.arange(len(inputs), device=inputs.device).split(batch_size)
        points = joined(work.map("Lipschitz ascent", parts, compute))["points"].to(inputs.device)
    at_inputs, near = (
        jacobian_spectrum(model, x, k=k, batch_size=batch_size, seed=seed, work=work, name=f"σ₁ {where}").values[:, 0]
        for x, where in ((inputs, "at the inputs"), (points, "near the inputs"))
    )
    return LipschitzLower(at_inputs, torch.maximum(at_inputs, near), points, float(eps))


def lipschitz_bounds(
    model: nn.Module,
    inputs: Tensor,
    *,
    eps: float,
    steps: int = 40,
    restarts: int = 1,
    layer_steps: int = 100,
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
) -> LipschitzBounds:
    """:func:`lipschitz_lower` near the inputs beside :func:`lipschitz_upper`, whose ``steps`` are ``layer_steps`` here.

    Raises:
        TypeError, ValueError: those of both.
    """
    upper = lipschitz_upper(model, tuple(inputs.shape[1:]), steps=layer_steps, seed=seed)
    lower = lipschitz_lower(
        model, inputs, eps=eps, steps=steps, restarts=restarts, bounds=bounds, batch_size=batch_size, seed=seed, work=work
    )  # fmt: skip
    return LipschitzBounds(lower, upper)


def _slopes(model: Model, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """J(a)ᵀu and J(b)ᵀu, u the direction of f(b) − f(a), by one forward and one backward pass of both."""
    point = torch.cat([a, b]).requires_grad_()
    with torch.enable_grad():
        outputs = model(point)
    low, high = outputs.detach().chunk(2)
    u = ops.dual_normalize(high - low, 2.0)
    (grad,) = torch.autograd.grad(outputs, point, torch.cat([u, u]))
    at_a, at_b = grad.chunk(2)
    return at_a, at_b

"""The maximisation inside an objective: steepest ascent within a ball, which costs its passes through the model alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Norm, norm_name
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count, check_number, undisturbed
from pyrobust.training._losses import wide
from pyrobust.training.randomness import keyed_seed
from pyrobust.training.term import Batch


class Ascent:
    """x₀ = start; xₖ = Π(xₖ₋₁ + step_size · argmax {⟨v, ∇ loss⟩ : ‖v‖_p ≤ 1}), Π onto ball ∩ bounds; x_steps is the result.

    Args:
        eps: radius of the ball, >= 0, in the units of the inputs.
        norm: "linf", "l2" or "l1" (or inf, 2, 1).
        steps: at least 1.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Raises:
        ValueError: naming the argument.
    """

    def __init__(self, eps: float, norm: Norm, steps: int, step_size: float | None, eval_mode: bool) -> None:
        self.p = EXPONENTS[norm_name(norm, tuple(EXPONENTS))]
        self.eps = check_number("eps", eps, 0)
        check_count(steps=steps)
        self.steps = steps
        self.step_size = 2.5 * eps / steps if step_size is None else check_number("step_size", step_size, 0)
        self.eval_mode = eval_mode

    def anywhere(self, batch: Batch, scale: float = 1.0) -> Tensor:
        """A start: uniform in the ball around each input, cut off at the bounds; ``scale`` in [0, 1] shrinks the ball."""
        return around(batch, self.p, scale * self.eps, "ascent")

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Callable[[Tensor], Tensor], start: Tensor, scale: float = 1.0
    ) -> Tensor:
        """The last point, detached. Costs ``steps`` forward and backward passes.

        Args:
            loss: from logits (N, K) to the sum over the samples of what is ascended.
            start: like the inputs; replaced by the result.
            scale: in [0, 1]: of the ball and of the steps.
        """
        inputs = batch.inputs.detach().contiguous()
        adv = start
        with undisturbed(model, self.eval_mode):
            for _ in range(self.steps):
                point = adv.detach().requires_grad_()
                with torch.enable_grad():
                    logits = model(point)
                (grad,) = torch.autograd.grad(logits, point, slope(loss, logits))
                ops.pgd_step_(adv, grad, inputs, self.p, scale * self.eps, scale * self.step_size, batch.bounds)
        return adv


def slope(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """∂ loss / ∂z, (N, K). In float16, where that of a confident sample would be rounded to 0, each row is scaled to a largest
    entry of 1: steepest ascent asks for its direction alone."""
    leaf = wide(logits.detach()).requires_grad_()
    with torch.enable_grad():
        (grad,) = torch.autograd.grad(loss(leaf), leaf)
    if logits.dtype == torch.float16:
        largest = grad.abs().amax(1, keepdim=True)
        grad = grad / largest.where(largest > 0, 1.0)
    return grad.to(logits.dtype)


def around(batch: Batch, p: float, radius: float, purpose: str) -> Tensor:
    """Uniform in the ball of ``radius`` around each input, cut off at the bounds."""
    inputs = batch.inputs.detach()
    return noise(batch, inputs, p, radius, purpose).add_(inputs).clamp_(*batch.bounds)


def noise(batch: Batch, like: Tensor, p: float, radius: float, purpose: str) -> Tensor:
    """One row a sample, uniform in the ball, keyed by the seed, the sample, the step and what it is for."""
    seed = keyed_seed(batch.seed, zlib.crc32(purpose.encode()))
    return ops.sample_lp_ball(like, p, radius, seed=seed, sample_ids=batch.sample_ids, step=batch.step)


def uniform(batch: Batch, count: int, purpose: str) -> Tensor:
    """(N, count) uniform in [0, 1], keyed as :func:`noise`."""
    like = batch.inputs.new_empty(len(batch.inputs), count, dtype=torch.float64)
    return noise(batch, like, EXPONENTS["linf"], 0.5, purpose).add_(0.5)


@torch.no_grad()
def evaluated(model: nn.Module, inputs: Tensor, eval_mode: bool = True) -> Tensor:
    """The logits without a graph, in evaluation mode (or as the model is, its buffers restored), in float32 at least."""
    with undisturbed(model, eval_mode):
        return wide(model(inputs))

"""σ-zero: the fewest values (or pixels) by gradient descent on a smooth l0 norm, with an adaptive threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_grouping,
    check_number,
    check_positive,
    clean_logits,
    logits_and_grad,
    undisturbed,
)
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_BETAS = 0.9, 0.999


@judged_in_float32
def sigma_zero(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l0",
    grouping: str | None = None,
    steps: int = 1000,
    step_size: float = 1.0,
    sigma: float = 1e-3,
    threshold: float = 0.3,
    threshold_step: float = 0.01,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min over δ of (m(x + δ))₊ + 1/D Σ_g ‖δ_g‖² / (‖δ_g‖² + σ), m the margin and g a value or a pixel.

    Adam steps on the gradient over its linf norm; then the box; then hard thresholding: groups with max |δ_g| ≤ τ
    become zero. τ grows by threshold_step · η after an adversarial point and falls by as much after another, within
    [0, 1]; η is the step size, which falls along a half cosine to a tenth.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l0" (or 0).
        grouping: "pixel" (default for (N, C, H, W): the C values at a place count once, σ and τ apply to them together)
            or "value" (the paper's; default otherwise).
        steps: of gradient descent.
        step_size: η at the start, > 0, in units of the width of ``bounds``, as δ and τ.
        sigma: σ > 0: the smaller, the closer to the l0 norm and the flatter away from zero.
        threshold: τ at the start, in [0, 1].
        threshold_step: relative to η, >= 0.
        targeted: with m = max_{j ≠ t} z_j − z_t, the nearest point of the target class.
        bounds: (low, high) of the inputs.
        seed, sample_ids: as everywhere; nothing is random here.
        callback: called as callback(step, SearchState); the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the adversarial point with the fewest changes that was met; the input itself
        where there was none, or where it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: steps + 1 forward and steps backward passes.
    Source: Cinà et al. 2025, algorithm 1 and eq. 4–6; by pixel and with targets it is this library's extension.
    """
    norm_name(norm, ("l0",))
    inputs, bounds, _ = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    grouping = check_grouping(grouping, "l0", inputs)
    check_positive(step_size=step_size, sigma=sigma)
    check_number("threshold", threshold, 0, 1)
    check_number("threshold_step", threshold_step, 0)

    def margin_gradient(logits: Tensor) -> Tensor:
        return _hinge_gradient(logits, labels, targeted)

    with undisturbed(model, eval_mode):
        nearest = Nearest(inputs, is_adversarial(clean_logits(model, inputs, labels), labels, targeted))
        state = ops.SigmaZeroState.start(inputs, threshold)
        size = step_size
        for step in range(steps):
            adv = state.adv
            logits, grad = logits_and_grad(model, adv, margin_gradient)
            adversarial = is_adversarial(logits, labels, targeted)
            nearest.offer(adv, state.distance, adversarial)
            if callback is not None and callback(step, SearchState(adv, adversarial, nearest.adv, nearest.distance)):
                break
            following = step_size * (0.55 + 0.45 * math.cos(math.pi * step / steps))
            ops.sigma_zero_step_(
                state, inputs, grad, adversarial, step_size=size, sigma=sigma, threshold_step=threshold_step * following,
                betas=_BETAS, corrections=(1 - _BETAS[0] ** (step + 1), 1 - _BETAS[1] ** (step + 1)), bounds=bounds,
                grouping=grouping,
            )  # fmt: skip
            size = following
    return nearest.adv


def _hinge_gradient(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """The gradient of (m)₊: m = z_y − max_{j ≠ y} z_j, negated for targets."""
    y = labels.unsqueeze(1)
    other = logits.scatter(1, y, -math.inf).argmax(1, keepdim=True)
    sign = -1.0 if targeted else 1.0
    gap = sign * (logits.gather(1, y) - logits.gather(1, other))
    push = (gap >= 0).to(logits.dtype).mul_(sign)
    return torch.zeros_like(logits).scatter_(1, y, push).scatter_(1, other, -push)


sigma_zero.norms = ("l0",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

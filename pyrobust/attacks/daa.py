"""The distributionally adversarial attack (Lagrangian blob): particles that ascend the loss and share their
gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._budget import Found, ascend
from pyrobust.attacks._common import Callback, Model, check_call, check_number, clean_logits, undisturbed
from pyrobust.attacks._losses import Loss, make_loss


def daa(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 200,
    step_size: float | None = None,
    particles: int = 10,
    interaction: float = 1.1,
    loss: Loss = "margin",
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """M particles xᵢ of each sample, uniform in the ball at the start: xᵢ ← Π(xᵢ + step_size · sign(φᵢ)),

        φᵢ = gᵢ + (c / M) Σⱼ Kᵢⱼ (gⱼ − (xᵢ − xⱼ) / h²),  Kᵢⱼ = exp(−‖xᵢ − xⱼ‖₂² / 2h²),

    gᵢ the gradient of the loss at xᵢ, h² half the median of ‖xᵢ − xⱼ‖₂² over all i and j, over log M; Π projects onto
    ball ∩ bounds. Particles follow the gradients of those near them and draw together, as in the published code: its
    flow ascends the expected loss less c times the entropy of the particles.

    There the particles are the perturbed images of a batch, so that the result of a sample depends on its batch; here
    they are restarts of one sample, and samples do not see each other. Images stay far apart and h hardly changes;
    restarts meet, so h is that of the starting points: a pull that grew as they meet would drown the gradient.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; it is called with N · particles inputs at a time.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        eps: radius of the linf ball, >= 0, in the units of the inputs.
        norm: "linf" (or inf), for which the attack is defined.
        steps: how many.
        step_size: >= 0, in the units of the inputs; default 2.5 · eps / steps.
        particles: M of each sample, an integer >= 2.
        interaction: c >= 0. The published code takes 1.1 for "ce" and 10 for the margin; 0 gives PGD with M restarts.
        loss: "margin", "dlr", "ce", or a function of (clean logits, perturbed logits) that returns one value a sample.
            The gradient of "ce" vanishes on confident samples, where the pull then decides: much weaker than PGD.
        targeted: descend the loss of the targets instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random starts, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, PgdState) with N · particles rows, the particles of a sample together; the
            attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample an adversarial point of the first particle that met one, or the final point of
        the first particle where there was none. Samples that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: particles · (steps + 1) + 1 forward and particles · steps backward passes.
    Source: Zheng, Chen and Ren 2019, DAA-BLOB; seed 003, §2.4.1.6 and §5.4 (200 steps).
    """
    norm_name(norm, daa.norms)  # type: ignore[attr-defined]
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    eps, interaction = check_number("eps", eps, 0), check_number("interaction", interaction, 0)
    size = 2.5 * eps / steps if step_size is None else check_number("step_size", step_size, 0)
    if isinstance(particles, bool) or not isinstance(particles, int) or particles < 2:
        raise ValueError(f"particles: expected an integer >= 2, got {particles!r}")
    centers = inputs.repeat_interleave(particles, 0)

    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels).repeat_interleave(particles, 0)
        repeated = labels.repeat_interleave(particles)
        found = Found(centers, repeated, clean, targeted)
        draws = [
            ops.sample_lp_ball(inputs, math.inf, eps, seed=seed, sample_ids=sample_ids, step=i)
            for i in range(particles)
        ]
        start = (torch.stack(draws, 1).flatten(0, 1) + centers).clamp_(*bounds)
        bandwidth = _bandwidth(start - centers, particles)

        def move(adv: Tensor, grad: Tensor, step: int) -> None:
            flow = _flow(adv - centers, grad, bandwidth, particles, interaction)
            ops.pgd_step_(adv, flow, centers, math.inf, eps, size, bounds)

        adv = ascend(model, [start], move, found, make_loss(loss, repeated, clean, targeted), steps, callback)
        first = (~found.missing).reshape(-1, particles).int().argmax(1)  # 0 where no particle found anything
        return adv[first + particles * torch.arange(len(inputs), device=inputs.device)]


def _squares(shift: Tensor, particles: int) -> Tensor:
    """‖xᵢ − xⱼ‖₂² of the particles at inputs + shift, (N, M, M) in float32 at least."""
    wide = shift.reshape(-1, particles, shift[0].numel()).to(torch.promote_types(shift.dtype, torch.float32))
    return torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _bandwidth(shift: Tensor, particles: int) -> Tensor:
    """h² of each sample, (N, 1, 1); inf, so that nothing attracts, where all particles are at one place."""
    median = _squares(shift, particles).flatten(1).quantile(0.5, dim=1)
    return (median / (2 * math.log(particles))).masked_fill_(median == 0, math.inf)[:, None, None]


def _flow(shift: Tensor, grad: Tensor, bandwidth: Tensor, particles: int, interaction: float) -> Tensor:
    """φ, like ``grad`` (N · M, …), at inputs + shift."""
    g = grad.reshape(-1, particles, grad[0].numel())
    r = shift.reshape(g.shape)
    kernel = torch.exp(_squares(shift, particles) / (-2 * bandwidth))
    pull = (kernel - torch.diag_embed(kernel.sum(2))) / bandwidth  # −Σⱼ Kᵢⱼ (xᵢ − xⱼ) = ((K − diag(Σⱼ Kᵢⱼ)) x)ᵢ
    mixed = torch.baddbmm(torch.bmm(pull.to(g.dtype), r), kernel.to(g.dtype), g)
    return torch.add(g, mixed, alpha=interaction / particles).reshape(grad.shape)


daa.norms = ("linf",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""Gradient ascent on the probability of a class until it reaches a confidence."""

from __future__ import annotations

from torch import Tensor

from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_count,
    check_positive,
    clean_logits,
    differentiating,
    gradient,
    undisturbed,
)
from pyrobust.attacks._confidence import (
    CHECK_EVERY,
    ConfidenceState,
    check_confidence,
    choose_targets,
    gradient_norm,
    log_probability,
    missing,
    move,
)


def confident_ascent(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    confidence: float | Tensor = 0.95,
    temperature: float = 1.0,
    steps: int = 2000,
    step_size: float = 1 / 255,
    top_k: int = 10,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x' ← clip(x' + step_size · ∇p_t(x') / ‖∇p_t(x')‖₂) until p_t ≥ confidence, with p = softmax(z / temperature).

    ∇ log p_t has the same direction as ∇p_t and is used instead, as it does not underflow. t is the class of the
    nearest boundary (DeepFool's estimate at the input) unless the attack is targeted.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" (or 2).
        confidence: in (0, 1), a number or (N,). Where it is below 1/2, the attack goes on until the target is the
            prediction too.
        temperature: of the softmax, > 0; :func:`pyrobust.analysis.softmax_temperature` finds the one at which a model's
            median confidence is a given value, so that models of different logit scales can be compared.
        steps: at most.
        step_size: l2 norm of a step, in units of the width of ``bounds``; > 0.
        top_k: how many of the likeliest classes t is chosen from.
        targeted: raise the probability of the labels instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: taken by every attack; nothing here is random.
        callback: called as callback(step, ConfidenceState) before each step; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the first point with the confidence, or the last point where it was not
        reached. Samples that are misclassified already (targeted: that have the confidence) come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most ``steps`` forward and backward passes, and before them 2 forward passes and min(top_k, K − 1) + 1
        gradients (targeted: 1 and 0). Every 10 steps the host waits to see whether all samples are done.
    Source: seed 001, "Example: LeNet on MNIST" with footnotes 9 and 10 (corrected): confidence 0.95, step 1.0 on the
        scale [0, 255].
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    log_c = check_confidence(confidence, inputs).log()
    check_positive(temperature=temperature)
    check_positive(step_size=step_size)
    check_count(top_k=top_k)
    length = step_size * (bounds[1] - bounds[0])
    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        targets, moving = choose_targets(model, inputs, labels, clean, top_k, targeted)
        adv = inputs.clone()
        for step in range(steps):
            point = adv.detach().requires_grad_()
            with differentiating():
                log_p, log_top = log_probability(model(point), targets, temperature)
                grad = gradient(log_p.sum(), point)
            log_p, log_top = log_p.detach(), log_top.detach()
            need = missing(log_p, log_top, log_c)
            moving = moving & (need > 0)
            if callback is not None and callback(step, ConfidenceState(adv, targets, log_p.exp(), need <= 0)):
                return adv
            adv = move(adv, grad, gradient_norm(grad), length * moving, bounds)
            if (step + 1) % CHECK_EVERY == 0 and not bool(moving.any()):
                break
    return adv


confident_ascent.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

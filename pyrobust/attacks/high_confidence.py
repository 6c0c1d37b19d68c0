"""The high-confidence attack: Newton steps until a class is as probable as asked, differentiable if wished."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

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

# Of the width of bounds, added to each step: log p_t is concave where the logits are linear, so that plain steps come ever
# closer to C from below, until they are lost in the rounding of the inputs.
_EXTRA = 1e-4


def high_confidence(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    confidence: float | Tensor | None = None,
    steps: int = 500,
    max_step: float | None = 0.1,
    top_k: int = 10,
    differentiable: bool = False,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """While p_t(x̂) < C: x̂ ← x̂ + (log C − log p_t) / ‖w‖₂² · w with w = ∇ log p_t(x̂), t the target class.

    The step is the shortest that reaches log C where log p_t is linear; it is made longer by 1e-4 of the width of
    ``bounds``. t is the class of the nearest boundary (DeepFool's estimate at the input) unless the attack is targeted.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" (or 2).
        confidence: C in (0, 1), a number or (N,); default: the largest probability at each input. Where it is below 1/2,
            the attack goes on until the target is the prediction too.
        steps: at most.
        max_step: largest l2 norm of a step, in units of the width of ``bounds``; None: no limit.
        top_k: how many of the likeliest classes t is chosen from.
        differentiable: return a result with a graph, through all steps, to what the model's output depends on (its
            parameters; not ``inputs``). The graph of every step is kept. The stop 1[p_t < C] is differentiated as
            sigmoid(C − p_t), straight through.
        targeted: raise the probability of the labels instead.
        bounds: (low, high) of the inputs.
        seed, sample_ids: taken by every attack; nothing here is random.
        callback: called as callback(step, ConfidenceState) before each step; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the point at which C was reached, or the last point where it was not. Samples
        that are misclassified already (targeted: that are classified as the target with confidence C) come back
        unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most ``steps`` forward and backward passes, and before them 2 forward passes and min(top_k, K − 1) + 1
        gradients (targeted: 1 and 0). Every 10 steps the host waits to see whether all samples are done.
    Source: seed 003, §4.4, algorithm 1, eq. 4.6–4.8 (corrected); §4.5 for steps and max_step (training: 5, None);
        the addition to the step is that of the authors' published code.
    """
    norm_name(norm, ("l2",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    level = None if confidence is None else check_confidence(confidence, inputs)
    check_count(top_k=top_k)
    if max_step is not None:
        check_positive(max_step=max_step)
    width = bounds[1] - bounds[0]
    # Without a limit of its own, no step is longer than the diagonal of the box: a vanishing gradient asks for more.
    longest = width * (math.sqrt(inputs[0].numel()) if max_step is None else max_step)
    with undisturbed(model, eval_mode):
        clean = clean_logits(model, inputs, labels)
        targets, moving = choose_targets(model, inputs, labels, clean, top_k, targeted)
        log_c = log_probability(clean, targets)[1] if level is None else level.log()
        gate = moving.to(log_c.dtype)
        forward = model
        if differentiable and isinstance(model, nn.Module):
            # The graph must not hold the buffers that are restored at the end.
            copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
            forward = functools.partial(functional_call, model, copies)
        adv = inputs.clone()
        for step in range(steps):
            point = adv if differentiable and step > 0 else adv.detach().requires_grad_()
            with differentiating():
                log_p, log_top = log_probability(forward(point), targets)
                grad = gradient(log_p.sum(), point, create_graph=differentiable)
            with torch.set_grad_enabled(differentiable):
                need = missing(log_p, log_top, log_c)
                going = (need > 0).to(gate.dtype)
                if differentiable:
                    soft = torch.sigmoid((log_p + need).exp() - log_p.exp())
                    going = going + (soft - soft.detach())
                gate = gate * going
                if callback is not None:
                    state = ConfidenceState(adv.detach(), targets, log_p.detach().exp(), need.detach() <= 0)
                    if callback(step, state):
                        return adv
                slope = gradient_norm(grad)
                length = (need / slope + _EXTRA * width).clamp(max=longest)
                adv = move(point, grad, slope, gate * length, bounds)
            if (step + 1) % CHECK_EVERY == 0 and not bool(gate.any()):
                break
    return adv


high_confidence.norms = ("l2",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

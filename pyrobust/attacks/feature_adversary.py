"""Feature adversary: imitate another image's internal representation within an linf budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_number,
    clean_logits,
    differentiating,
    gradient,
    replace_rows_,
    undisturbed,
)
from pyrobust.attacks._search import is_adversarial


class FeatureState(NamedTuple):
    """What a callback sees: the point just evaluated and its squared distance from the guide's representation, and the
    closest so far."""

    adv: Tensor
    distance: Tensor
    best: Tensor
    best_distance: Tensor


def feature_adversary(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "linf",
    guides: Tensor,
    layer: Callable[[Tensor], Tensor],
    eps: float,
    steps: int = 100,
    step_size: float | None = None,
    random_start: bool = False,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """min ‖φ(inputs + r) − φ(guides)‖₂² over ‖r‖∞ ≤ eps and ``bounds``, by projected signed gradient steps.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``: they decide only which inputs are adversarial
            already.
        norm: "linf" (or inf).
        guides: like ``inputs``: the image whose representation each input is to take on.
        layer: φ: a module inside ``model``, whose output is taken as the model calls it (the last time it does), or any
            other function of inputs with one row a sample.
        eps: radius of the linf ball, >= 0, in the units of the inputs.
        steps: of signed gradient descent.
        step_size: in the units of the inputs; default 2.5 · eps / steps.
        random_start: start uniformly in the ball, else at the input.
        targeted: the labels are targets.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the random start, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, FeatureState) for the start and after each step; the attack stops when it
            returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: the point seen whose representation is closest to the guide's, whatever its prediction. Samples
        that are adversarial already come back unchanged.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: steps + 3 forward and ``steps`` backward passes; where ``layer`` is not inside the model, all but one of the
        forward passes are of ``layer`` alone.
    Source: Sabour et al. 2016, eq. 1 and 2 (there with L-BFGS-B); seed 003, §2.4.1.5, eq. 2.19.
    """
    norm_name(norm, ("linf",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    check_number("eps", eps, 0)
    if step_size is None:
        step_size = 2.5 * eps / steps
    else:
        check_number("step_size", step_size, 0)
    if not isinstance(guides, Tensor) or guides.shape != inputs.shape or guides.dtype != inputs.dtype:
        got = f"{guides.dtype} {tuple(guides.shape)}" if isinstance(guides, Tensor) else type(guides).__name__
        raise ValueError(f"guides: expected a tensor like inputs, {inputs.dtype} {tuple(inputs.shape)}, got {got}")
    if not callable(layer):
        raise ValueError(f"layer: expected a module or a function, got {layer!r}")
    with undisturbed(model, eval_mode), undisturbed(layer, eval_mode), _representation(model, layer) as features:
        done = is_adversarial(clean_logits(model, inputs, labels), labels, targeted)
        with torch.no_grad():
            wanted = features(guides.to(inputs.device))
        adv = inputs.clone()
        if random_start:
            adv += ops.sample_lp_ball(inputs, math.inf, float(eps), seed=seed, sample_ids=sample_ids)
            adv.clamp_(*bounds)
        best = inputs.clone()
        best_distance = torch.full(done.shape, math.inf, dtype=wanted.dtype, device=inputs.device)
        for step in range(steps + 1):
            point = adv.detach().requires_grad_(step < steps)
            with differentiating() if step < steps else torch.no_grad():
                distance = (features(point) - wanted).square().sum(1)
            here = distance.detach()
            closer = (here < best_distance) & ~done
            replace_rows_(best, closer, adv)
            best_distance = torch.where(closer, here, best_distance)
            if callback is not None and callback(step, FeatureState(adv, here, best, best_distance)):
                break
            if step < steps:
                grad = gradient(distance, point, torch.full_like(distance, -1))
                ops.pgd_step_(adv, grad, inputs, math.inf, float(eps), float(step_size), bounds)
    return best


@contextmanager
def _representation(model: Model, layer: Callable[[Tensor], Tensor]) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from inputs (N, …) to φ as (N, D), in float32 at least."""
    captured: list[Any] = []
    inside = isinstance(model, nn.Module) and any(module is layer for module in model.modules())
    hook = layer.register_forward_hook(lambda *call: captured.append(call[2])) if inside else None  # type: ignore[attr-defined]

    def features(inputs: Tensor) -> Tensor:
        if inside:
            captured.clear()
            model(inputs)
            if not captured:
                raise ValueError("layer: expected a module that the model calls, got one that it does not")
            output = captured.pop()
        else:
            output = layer(inputs)
        if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != len(inputs):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer: expected an output of shape ({len(inputs)}, …), got {got}")
        return output.reshape(len(inputs), -1).to(torch.promote_types(output.dtype, torch.float32))

    try:
        yield features
    finally:
        if hook is not None:
            hook.remove()


feature_adversary.norms = ("linf",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

"""The L0 attack on a linear model: the pixels of its most extreme weights are set to the upper bound."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, check_count, clean_logits, rows_like, undisturbed
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._search import Nearest, SearchState, class_gradients, is_adversarial


@judged_in_float32
def extreme_weights(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l0",
    pixels: int | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x_i ← high for the fewest i that are enough, in falling order of the weight w_i = (W_j − W_y)_i > 0.

    For two classes these are the locations of the largest or, from the other class, the smallest weights of a logistic
    regression. Which pixels they are does not depend on the image, only how many are needed: dead pixels have the same
    effect. j is the class that needs the fewest; with targets it is the target, and y the likeliest other class.

    The weights are read as the gradients of the logits, so the linear model may be wrapped at will; for a model that
    is not linear they are those of its linearisation at each input.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l0" (or 0).
        pixels: how many values may be set, >= 1; default all of positive weight.
        targeted: reach the class ``labels``.
        bounds: (low, high) of the inputs.
        seed, sample_ids: as everywhere; nothing is random here.
        callback: called as callback(step, SearchState) after each forward pass; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the adversarial point with the fewest values set that was met (for a linear
        model with two classes, the fewest in this order); the input itself where there was none, or where it is
        misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: K gradients a sample, held at once, and ⌈log₂(D + 1)⌉ + 3 forward passes, by bisection over how many.
    Source: seed 000, §4.2 and figure 7a.
    """
    norm_name(norm, ("l0",))
    inputs, bounds, _ = check_call(inputs, labels, bounds, 1, 1, sample_ids, seed)
    if pixels is not None:
        check_count(pixels=pixels)
    high = bounds[1]
    with undisturbed(model, eval_mode):
        nearest = Nearest(inputs, is_adversarial(clean_logits(model, inputs, labels), labels, targeted))
        logits, gradients = class_gradients(model, inputs)
        weights = _weights(logits, gradients.flatten(2), high - inputs.flatten(1), labels, targeted)
        rank = weights.argsort(dim=1, descending=True, stable=True).argsort(dim=1).reshape(inputs.shape)
        enough = (weights > 0).sum(1)
        if pixels is not None:
            enough = enough.clamp(max=pixels)
        too_few = torch.zeros_like(enough)
        for step in range(1 + math.ceil(math.log2(weights.shape[1] + 1))):
            tried = enough if step == 0 else (too_few + enough + 1) // 2
            adv = torch.where(rank < rows_like(tried, rank), high, inputs)
            with torch.no_grad():
                adversarial = is_adversarial(model(adv), labels, targeted)
            nearest.offer(adv, ops.lp_norm(adv - inputs, "l0"), adversarial)
            if callback is not None and callback(step, SearchState(adv, adversarial, nearest.adv, nearest.distance)):
                break
            enough = torch.where(adversarial, tried, enough)
            too_few = torch.where(adversarial, too_few, tried)
    return nearest.adv


def _weights(logits: Tensor, gradients: Tensor, room: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """(N, D): W_j − W_y, j the class that the fewest values reach by the linear model."""
    y = labels.unsqueeze(1)
    others = logits.scatter(1, y, -math.inf).argsort(dim=1, descending=True, stable=True)[:, :-1]
    start, goals = (others[:, :1], y) if targeted else (y, others)
    columns = gradients.shape[2]

    def rows(classes: Tensor) -> Tensor:
        return gradients.gather(1, classes.unsqueeze(2).expand(-1, -1, columns))

    weights = rows(goals) - rows(start)
    order = weights.argsort(dim=2, descending=True, stable=True)
    gains = (weights.clamp(min=0) * room.unsqueeze(1)).gather(2, order)
    short = (logits.gather(1, start) - logits.gather(1, goals)).unsqueeze(2)
    needed = (gains.cumsum(2, dtype=torch.float64) <= short).sum(2)
    best = needed.argmin(1)
    return weights[torch.arange(len(weights), device=weights.device), best]


extreme_weights.norms = ("l0",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

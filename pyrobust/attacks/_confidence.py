"""What attacks that raise the probability of a class share: the choice of the class, and steps along its gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.attacks._common import Model, rows_like
from pyrobust.attacks._search import class_gradients, is_adversarial

CHECK_EVERY = 10  # steps between looks at whether every sample is done, each of which waits for the device


class ConfidenceState(NamedTuple):
    """What a callback sees: the point just predicted, the classes aimed at, how probable each is there, and where that
    is enough."""

    adv: Tensor
    targets: Tensor
    confidence: Tensor
    reached: Tensor


def check_confidence(confidence: float | Tensor, inputs: Tensor) -> Tensor:
    """``confidence`` as (N,) on the inputs' device, in float32 at least.

    Raises:
        ValueError: it is not a number, or one a sample, in (0, 1).
    """
    wide = torch.promote_types(inputs.dtype, torch.float32)
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float, Tensor)):
        raise ValueError(f"confidence: expected a number or a tensor, got {confidence!r}")
    values = torch.as_tensor(confidence, dtype=wide, device=inputs.device).detach()
    if values.shape not in ((), inputs.shape[:1]):
        raise ValueError(f"confidence: expected a number or shape ({len(inputs)},), got {tuple(values.shape)}")
    if not bool(((values > 0) & (values < 1)).all()):
        raise ValueError("confidence: expected values in (0, 1)")
    return values.expand(len(inputs))


def choose_targets(
    model: Model, inputs: Tensor, labels: Tensor, clean: Tensor, top_k: int, targeted: bool
) -> tuple[Tensor, Tensor]:
    """The class that each sample is driven to, and which samples are to be moved at all.

    Targeted, these are the labels, for all samples. Else the class of the nearest boundary, as DeepFool estimates it,
    for the samples that are classified as their label.
    """
    if targeted:
        return labels, torch.ones_like(labels, dtype=torch.bool)
    return nearest_class(model, inputs, labels, clean, top_k), ~is_adversarial(clean, labels, False)


def nearest_class(model: Model, inputs: Tensor, labels: Tensor, clean: Tensor, top_k: int) -> Tensor:
    """argmin_j |z_y − z_j| / ‖∇z_y − ∇z_j‖₂ over the ``top_k`` likeliest classes j ≠ y, of the logits ``clean`` at the
    inputs. Costs one forward pass and min(top_k, K − 1) + 1 gradients a sample (Moosavi-Dezfooli et al. 2016)."""
    y = labels.unsqueeze(1)
    others = clean.scatter(1, y, -math.inf).topk(min(top_k, clean.shape[1] - 1), dim=1).indices
    logits, gradients = class_gradients(model, inputs, torch.cat([y, others], 1))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    slope = (gradients[:, 1:] - gradients[:, :1]).flatten(2).to(logits.dtype).norm(dim=2)
    distance = (logits.gather(1, y) - logits.gather(1, others)).abs() / slope
    return others.gather(1, distance.nan_to_num(math.inf, math.inf).argmin(1, keepdim=True)).squeeze(1)


def log_probability(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log softmax(z / temperature), in float32 at least: of the targets (N,), and of the likeliest class (N,)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = torch.log_softmax(wide / temperature, dim=1)
    return log_probs.gather(1, targets.unsqueeze(1)).squeeze(1), log_probs.amax(1)


def missing(log_p: Tensor, log_top: Tensor, log_confidence: Tensor) -> Tensor:
    """By how much log p_target must rise to ``log_confidence``, and to that of the likeliest class after that: below
    1/2 a confidence alone does not make the target the prediction. 0 once both are reached."""
    return torch.where(log_p < log_confidence, log_confidence, log_top) - log_p


def gradient_norm(grad: Tensor) -> Tensor:
    """(N,) ‖grad‖₂ in float32 at least; inf, so that nothing divided by it moves, where it is 0 or not finite."""
    norm = ops.lp_norm(grad, 2)
    return torch.where(norm > 0, norm, math.inf)


def move(adv: Tensor, grad: Tensor, norm: Tensor, length: Tensor, bounds: tuple[float, float]) -> Tensor:
    """adv + length · grad / norm inside ``bounds``, norm from :func:`gradient_norm`. Differentiable."""
    rate = (length / norm).nan_to_num(0.0).to(adv.dtype)
    grad = torch.where(rows_like(norm.isfinite(), grad), grad, 0.0)
    return torch.addcmul(adv, grad, rows_like(rate, adv)).clamp(*bounds)

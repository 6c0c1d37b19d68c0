"""Small attacks in plain PyTorch, strong enough for the tests of the harness around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _gradient(model, points: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    leaf = points.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(model(leaf), labels, reduction="sum")
        gradient = torch.autograd.grad(loss, leaf)[0]
    return -gradient if targeted else gradient


def _hit(model, points: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    with torch.no_grad():
        predictions = model(points).argmax(1)
    return predictions == labels if targeted else predictions != labels


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def walk(model, inputs, labels, *, norm, steps=40, targeted=False, bounds=(0.0, 1.0), seed=0, sample_ids=None):
    """Minimum-norm: walk up the loss from a start keyed by (seed, sample), then bisect back towards the input."""
    start = torch.zeros_like(inputs)
    for row, sample in zip(start, sample_ids.tolist(), strict=True):
        row.uniform_(-1e-3, 1e-3, generator=torch.Generator().manual_seed(seed * 100003 + sample))
    points = (inputs + start).clamp(*bounds)
    for _ in range(steps):
        gradient = _gradient(model, points, labels, targeted)
        if norm in ("linf", float("inf")):
            step = 0.05 * gradient.sign()
        else:
            step = 0.3 * gradient / _per_sample(gradient.flatten(1).norm(dim=1).clamp_min(1e-12), gradient)
        todo = ~_hit(model, points, labels, targeted)
        points = torch.where(_per_sample(todo, points), (points + step).clamp(*bounds), points)
    hit = _hit(model, points, labels, targeted)
    low, high = torch.zeros(len(inputs)), torch.ones(len(inputs))
    for _ in range(12):
        middle = (low + high) / 2
        inside = _hit(model, torch.lerp(inputs, points, _per_sample(middle, inputs)), labels, targeted)
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    best = torch.lerp(inputs, points, _per_sample(high, inputs)).clamp(*bounds)
    return torch.where(_per_sample(hit, inputs), best, inputs)


def step_once(model, inputs, labels, *, norm, eps, targeted=False, bounds=(0.0, 1.0)):
    """Budget, linf: one signed gradient step of size eps."""
    assert norm == "linf"
    return (inputs + eps * _gradient(model, inputs, labels, targeted).sign()).clamp(*bounds)


def clean(model, inputs, labels):
    """Returns what it was given."""
    return inputs


def out_of_box(model, inputs, labels):
    """Adversarial, but far outside the bounds."""
    return inputs + 1e3 * _gradient(model, inputs, labels, False).sign()


def not_a_number(model, inputs, labels):
    """Returns NaN, which no class belongs to."""
    return torch.full_like(inputs, float("nan"))


def over_budget(model, inputs, labels, *, eps, bounds=(0.0, 1.0)):
    """Ignores its budget: goes twice as far."""
    return step_once(model, inputs, labels, norm="linf", eps=2 * eps, bounds=bounds)


def in_place(model, inputs, labels):
    """Moves the caller's tensor to claim that nothing was changed."""
    inputs.add_(_gradient(model, inputs.clone(), labels, False).sign()).clamp_(0, 1)
    return inputs


def wrong_shape(model, inputs, labels):
    """Returns half of the batch."""
    return inputs[: len(inputs) // 2]


def raises(model, inputs, labels):
    """Fails outright."""
    raise RuntimeError("no such luck")

"""Fooling images: noise that a classifier is made to recognise as a class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, check_bounds, check_logits, norm_name
from pyrobust.attacks._common import Model, logits_and_grad, undisturbed

_EXPONENTS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


class FoolingCurve(NamedTuple):
    """What :func:`fooling_curve` measured, one value for each eps, in float64.

    Attributes:
        eps: the budgets.
        success: share of trials in which the target is the prediction, with at least the threshold's probability.
        margin: mean difference between the two largest probabilities.
    """

    eps: Tensor
    success: Tensor
    margin: Tensor


def fooling_images(
    model: Model,
    targets: Tensor,
    shape: Sequence[int],
    *,
    noise: Bounds = (0.5, 0.6),
    norm: Norm = "linf",
    steps: int = 50,
    step_size: float = 5e-3,
    bounds: Bounds = (0.0, 1.0),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """x₀ uniform in ``noise``; x ← clip(x + step_size · v), v the steepest direction of log p_target with ‖v‖ = 1.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        targets: int64 (N,): the class each image is driven to, on the model's device.
        shape: of one image.
        noise: (low, high) of the start, inside ``bounds``.
        norm: of a step: "linf" (signs), "l2" or "l1".
        steps: of ascent.
        step_size: in the units of the images.
        bounds: (low, high) of the images.
        dtype: of the images.
        seed: of the noise; image i depends on (seed, i) alone.

    Returns:
        (N, *shape).

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: steps + 1 forward and ``steps`` backward passes.
    Source: seed 000, §6.1 and fig. 8, which leaves the norm of a step open; Nguyen et al. 2015.
    """
    exponent = _EXPONENTS[norm_name(norm, tuple(_EXPONENTS))]
    bounds = _check_noise(noise, bounds)
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.ndim != 1 or not len(targets):
        raise ValueError("targets: expected an int64 tensor of shape (N,), N >= 1")
    _check_steps(steps)
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size: expected a finite number > 0, got {step_size!r}")
    ids = torch.arange(len(targets), device=targets.device)
    images = _noise(ids, shape, noise, dtype, seed)
    start, anywhere = images.clone(), _diameter(images, bounds)
    with undisturbed(model):
        with torch.no_grad():
            classes = check_logits(model(images), len(images))
        if int(targets.amin()) < 0 or int(targets.amax()) >= classes:
            raise ValueError(f"targets: expected 0 <= target < {classes}")
        for _ in range(steps):
            grad = _ascent(model, images, targets)
            ops.pgd_step_(images, grad, start, exponent, anywhere, float(step_size), bounds)
    return images


def fooling_curve(
    model: Model,
    shape: Sequence[int],
    eps: Sequence[float],
    *,
    samples: int = 1000,
    noise: Bounds = (0.0, 1.0),
    steps: int = 1,
    threshold: float = 0.0,
    batch_size: int = 100,
    bounds: Bounds = (0.0, 1.0),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> FoolingCurve:
    """How often, and how surely, sign gradient steps within ‖x − x₀‖∞ ≤ eps turn noise x₀ into each class.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        shape: of one image.
        eps: budgets, >= 0, in the units of the images.
        samples: noise images; each is driven to each of the K classes.
        noise: (low, high) of the noise, inside ``bounds``.
        steps: 1: a single step of size eps; more: steps of 2.5 · eps / steps, projected onto the ball.
        threshold: probability in [0, 1] that the target must have too; 0: being the prediction is enough.
        batch_size: images a forward pass.
        bounds: (low, high) of the images.
        dtype, device: of the images.
        seed: of the noise; image i depends on (seed, i) alone.

    Returns:
        FoolingCurve.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass of each sample; for each sample and class one gradient, and for each eps steps − 1 gradients and
        one forward pass.
    Source: seed 000, §6.1 and fig. 9; the threshold 0.5 is that of Goodfellow 2015.
    """
    bounds = _check_noise(noise, bounds)
    budgets = [float(value) for value in eps]
    if not budgets or not all(0 <= value < math.inf for value in budgets):
        raise ValueError(f"eps: expected finite numbers >= 0, got {eps!r}")
    _check_steps(steps)
    for name, value in (("samples", samples), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a value in [0, 1], got {threshold!r}")
    hits = torch.zeros(len(budgets), dtype=torch.float64, device=device)
    margins, trials = hits.clone(), 0
    with undisturbed(model):
        for start, targets in _trials(model, samples, shape, noise, batch_size, dtype, device, seed):
            trials += len(targets)
            first = _ascent(model, start, targets)
            for i, budget in enumerate(budgets):
                step_size = budget if steps == 1 else 2.5 * budget / steps
                images = ops.pgd_step_(start.clone(), first, start, math.inf, budget, step_size, bounds)
                for _ in range(steps - 1):
                    grad = _ascent(model, images, targets)
                    ops.pgd_step_(images, grad, start, math.inf, budget, step_size, bounds)
                with torch.no_grad():
                    probs = torch.softmax(model(images).double(), 1)
                top = probs.topk(2, dim=1).values
                at_target = probs.gather(1, targets.unsqueeze(1)).squeeze(1)
                hits[i] += ((probs.argmax(1) == targets) & (at_target >= threshold)).sum()
                margins[i] += (top[:, 0] - top[:, 1]).sum()
    return FoolingCurve(torch.tensor(budgets, dtype=torch.float64), hits.cpu() / trials, margins.cpu() / trials)


def _trials(
    model: Model,
    samples: int,
    shape: Sequence[int],
    noise: Bounds,
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device | str,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of noise, each with each class."""
    for ids in torch.arange(samples, device=device).split(batch_size):
        start = _noise(ids, shape, noise, dtype, seed)
        with torch.no_grad():
            classes = check_logits(model(start), len(start))
        for target in range(classes):
            yield start, torch.full_like(ids, target)


def _noise(ids: Tensor, shape: Sequence[int], noise: Bounds, dtype: torch.dtype, seed: int) -> Tensor:
    low, high = noise
    like = torch.empty((len(ids), *shape), dtype=dtype, device=ids.device)
    unit = ops.sample_lp_ball(like, math.inf, 0.5 * (high - low), seed=seed, sample_ids=ids)
    return unit.add_(0.5 * (low + high)).clamp_(low, high)


def _ascent(model: Model, images: Tensor, targets: Tensor) -> Tensor:
    """∇ log p_target at the images."""

    def seed_at(logits: Tensor) -> Tensor:
        probs = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)
        return torch.nn.functional.one_hot(targets, logits.shape[1]) - probs

    return logits_and_grad(model, images, seed_at)[1]


def _diameter(images: Tensor, bounds: Bounds) -> float:
    """A radius that no ball around a point of the box can bind at, in any norm."""
    return (bounds[1] - bounds[0]) * images[0].numel()


def _check_noise(noise: Bounds, bounds: Bounds) -> Bounds:
    low, high = check_bounds(bounds)
    try:
        inner = check_bounds(noise)
    except ValueError as error:
        raise ValueError(f"noise: expected finite low < high, got {noise!r}") from error
    if inner[0] < low or inner[1] > high:
        raise ValueError(f"noise: expected a range inside bounds {bounds}, got {noise!r}")
    return low, high


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")

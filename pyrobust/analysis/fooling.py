"""Fooling images: noise that a classifier is made to recognise as a class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, check_logits, norm_name
from pyrobust.analysis._noise import check_noise, noise_images, unbounded_radius
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import Model, check_count, check_number, check_positive, logits_and_grad, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    def plot(self, name: str = "") -> Figure:
        """Success rate and margin over eps; :func:`plot_fooling_curves` draws several curves."""
        return plot_fooling_curves({name: self})


def plot_fooling_curves(curves: Mapping[str, FoolingCurve]) -> Figure:
    """Two panels, success rate and margin over eps, a line for each name (seed 000, fig. 9)."""
    from pyrobust.analysis._draw_fooling import draw_curves

    return draw_curves(curves)


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
    exponent = EXPONENTS[norm_name(norm, tuple(EXPONENTS))]
    bounds = check_noise(noise, bounds)
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or targets.ndim != 1 or not len(targets):
        raise ValueError("targets: expected an int64 tensor of shape (N,), N >= 1")
    check_count(steps=steps)
    check_positive(step_size=step_size)
    ids = torch.arange(len(targets), device=targets.device)
    images = noise_images(ids, shape, noise, dtype, seed)
    start, anywhere = images.clone(), unbounded_radius(images, bounds)
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
    work: Work | None = None,
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
        work: progress and resume.

    Returns:
        FoolingCurve.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass of each sample; for each sample and class one gradient, and for each eps steps − 1 gradients and
        one forward pass.
    Source: seed 000, §6.1 and fig. 9; the threshold 0.5 is that of Goodfellow 2015.
    """
    bounds = check_noise(noise, bounds)
    budgets = [float(value) for value in eps]
    if not budgets or not all(0 <= value < math.inf for value in budgets):
        raise ValueError(f"eps: expected finite numbers >= 0, got {eps!r}")
    check_count(samples=samples, steps=steps, batch_size=batch_size)
    check_number("threshold", threshold, 0, 1)

    def compute(ids: Tensor) -> dict[str, Tensor]:
        start = noise_images(ids, shape, noise, dtype, seed)
        with torch.no_grad():
            classes = check_logits(model(start), len(start))
        hits = torch.zeros(len(budgets), dtype=torch.float64, device=device)
        margins = hits.clone()
        for target in range(classes):
            targets = torch.full_like(ids, target)
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
        trials = torch.tensor([classes * len(ids)], dtype=torch.float64)
        return {"hits": hits.unsqueeze(0), "margins": margins.unsqueeze(0), "trials": trials}

    with undisturbed(model):
        parts = torch.arange(samples, device=device).split(batch_size)
        name = f"fooling curve, {steps} step{'s' if steps > 1 else ''}"
        found = {key: values.sum(0) for key, values in joined((work or Work()).map(name, parts, compute)).items()}
    success, margin = found["hits"] / found["trials"], found["margins"] / found["trials"]
    return FoolingCurve(torch.tensor(budgets, dtype=torch.float64), success, margin)


def _ascent(model: Model, images: Tensor, targets: Tensor) -> Tensor:
    """∇ log p_target at the images."""

    def seed_at(logits: Tensor) -> Tensor:
        probs = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)
        return torch.nn.functional.one_hot(targets, logits.shape[1]) - probs

    return logits_and_grad(model, images, seed_at)[1]

"""Sections on logistic regressions: weights, perturbations, and accuracy under both kinds of attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust.analysis._draw_logistic import draw_candidates
from pyrobust.analysis.linear_robustness import extreme_pixels, linear_robustness
from pyrobust.analysis.logistic import fast_gradient_points, weight_images
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session
from pyrobust.models import TwoClassLinear

CANDIDATES = 6
SCALE = 100.0  # of the clipped fast gradient, as in the paper


class Pair(NamedTuple):
    """Two classes of the data, the first of them labelled 0 and the second 1, on the session's device."""

    classes: tuple[int, int]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def name(self) -> str:
        """Both, as pages call them."""
        return f"{self.classes[1]} (class 1) and {self.classes[0]} (class 0)"


def logistic_sections(session: Session, models: Mapping[str, TwoClassLinear], pair: Pair, eps: float) -> list[Section]:
    """Weights and perturbations, candidates, accuracy over eps, accuracy over extreme pixels."""
    return [
        _weights(models, pair, eps, session.batch_size),
        _candidates(models["expert, l2 0.05"], pair, eps),
        _robustness(session, models, pair),
        _extremes(models, pair, session.batch_size),
    ]


def _weights(models: Mapping[str, TwoClassLinear], pair: Pair, eps: float, batch_size: int) -> Section:
    inputs, labels = pair.test
    found = weight_images(models, inputs, labels, eps=eps, scale=SCALE, batch_size=batch_size)
    rows, numbers = [], {}
    for name, model, angle in zip(models, models.values(), found.angle.tolist(), strict=True):
        clean = _error(model, inputs, labels)
        cells = []
        for scale in (None, SCALE):
            points = fast_gradient_points(model, inputs, labels, eps=eps, scale=scale, batch_size=batch_size)
            length = float((points - inputs).double().flatten(1).norm(dim=1).mean())
            cells += [_error(model, points, labels), length]
        numbers[name] = {"angle": angle, "clean": clean, "fgsm": cells[:2], "clipped": cells[2:]}
        shown = (f"{100 * cells[0]:.1f} %", f"{cells[1]:.2f}", f"{100 * cells[2]:.1f} %", f"{cells[3]:.2f}")
        rows.append((name, f"{float(model.direction.norm()):.3g}", f"{angle:.1f}°", f"{100 * clean:.2f} %", *shown))
    columns = ("model", "‖w‖", "θ", "error", "FGSM error", "mean ‖r‖₂", "clipped gradient error", "mean ‖r‖₂")
    return Section(
        "Logistic regressions: weights and perturbations",
        f"{pair.name}: weights, and what they make an attacker add to an image of class 0 within ε = {eps:g} in linf; below each "
        "name the angle θ between the weights and the difference of the class means. Errors on the test samples, lengths over "
        "all of them, after clipping to [0, 1]. The λ of l1 multiplies the sum of |w| over 784, that of l2 ½‖w‖².",
        figure=found.plot(),
        table=Table(columns, rows),
        data=numbers,
    )


def _candidates(model: TwoClassLinear, pair: Pair, eps: float) -> Section:
    inputs, labels = pair.test
    first = torch.cat([(labels == label).nonzero().squeeze(1)[: CANDIDATES // 2] for label in (1, 0)])
    images, right = inputs[first], labels[first]
    rows = {
        "image": images,
        "FGSM": fast_gradient_points(model, images, right, eps=eps),
        "fast gradient,\nclipped": fast_gradient_points(model, images, right, eps=eps, scale=SCALE),
    }
    named = {
        name: [f"predicted {pair.classes[label]}" for label in model(points).argmax(1).tolist()]
        for name, points in rows.items()
    }
    drawable = images.ndim == 4 and images.shape[1] in (1, 3)
    shown = {name: points.cpu() for name, points in rows.items()}
    return Section(
        "Logistic regressions: candidate adversarial examples",
        f"Test images of both classes, perturbed by {eps:g} in linf against the model that begins at the class means and decays.",
        figure=draw_candidates(shown, named) if drawable else None,
        data={"predictions": named},
    )


def _robustness(session: Session, models: Mapping[str, TwoClassLinear], pair: Pair) -> Section:
    found = linear_robustness(models, *pair.test, batch_size=session.batch_size, work=session.work)
    return Section(
        "Logistic regressions: robust accuracy",
        "The exact share of test samples that no perturbation within ε in linf and [0, 1] changes the class of, which for a linear "
        "model is its accuracy under FGSM.",
        figure=found.plot(),
        data={"models": found.names, "distance": found.distance},
    )


def _extremes(models: Mapping[str, TwoClassLinear], pair: Pair, batch_size: int) -> Section:
    inputs, labels = pair.test
    found = extreme_pixels(models, inputs, labels, most=min(50, inputs[0].numel() // 4), batch_size=batch_size)
    return Section(
        "Logistic regressions: accuracy over extreme pixels",
        "The values at the largest and at the smallest weights are set to 1 in every sample, so many at either end. Weights that "
        "are few and large, as FGSM training and l1 decay leave them, are thrown off by a few values.",
        figure=found.plot(),
        data={"models": found.names, "pixels": found.pixels, "accuracy": found.accuracy},
    )


def _error(model: TwoClassLinear, inputs: Tensor, labels: Tensor) -> float:
    return float((model(inputs).argmax(1) != labels).double().mean())

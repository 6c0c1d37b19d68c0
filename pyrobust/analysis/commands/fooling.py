"""Which noise a network takes for its classes, and how surely."""

from __future__ import annotations

import torch

from pyrobust._checks import check_logits
from pyrobust.analysis.fooling import FoolingCurve, fooling_curve, fooling_images, plot_fooling_curves
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.recognition import recognised
from pyrobust.analysis.session import Session
from pyrobust.attacks._common import check_count, check_number

EPS = (0, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 255)  # grey levels of 255


def fooling_sections(session: Session, trials: int = 50, steps: int = 10, threshold: float = 0.0) -> list[Section]:
    """Fooling images of each class, and success rate and margin over eps of one step and of several.

    Args:
        session: what is analysed.
        trials: noise images, each driven to every class at every eps.
        steps: of the iterative curve, at least 2.
        threshold: the probability in [0, 1] that the class must have too; 0: being the prediction is enough.
    """
    check_fooling(trials, steps, threshold)
    model, shape, dtype = session.model, session.inputs.shape[1:], session.inputs.dtype
    with torch.no_grad():
        classes = check_logits(model(session.inputs[:1]), 1)
    targets = torch.arange(classes, device=session.device)
    images = fooling_images(model, targets, shape, dtype=dtype, seed=session.seed)
    found = recognised(model, images, targets, batch_size=session.batch_size)
    curves: dict[str, FoolingCurve] = {}
    for name, count in (("single step", 1), (f"{steps} steps", steps)):
        curves[name] = fooling_curve(
            model, shape, [eps / 255 for eps in EPS], samples=trials, steps=count, threshold=threshold, dtype=dtype,
            batch_size=session.batch_size, device=session.device, seed=session.seed, work=session.work,
        )  # fmt: skip
    drawable = images.ndim == 4 and images.shape[1] in (1, 3)
    surer = f" with a probability of {threshold:g} or more" if threshold else ""
    rows = [
        (
            f"{eps}/255",
            *(text for c in curves.values() for text in (f"{100 * c.success[i]:.1f} %", f"{c.margin[i]:.3f}")),
        )
        for i, eps in enumerate(EPS)
    ]
    seen = [
        (str(made_for), str(taken_for), f"{100 * share:.1f} %")
        for made_for, taken_for, share in zip(
            found.classes.tolist(), found.predictions.tolist(), found.confidence.tolist(), strict=True
        )
    ]
    return [
        Section(
            "Fooling images",
            "Uniform noise in [0.5, 0.6] after 50 signed gradient steps of 0.005 on the log-probability of each class, with the "
            "probability that the network gives it then.",
            figure=found.plot() if drawable else None,
            table=Table(("class", "seen as", "probability"), seen),
            data={"confidence": found.confidence, "predictions": found.predictions},
        ),
        Section(
            "Fooling curves",
            f"Share of {trials} noise images, uniform in [0, 1], that become each of the {classes} classes{surer} within an l∞ "
            "ball of radius eps, and the mean difference between the two largest probabilities: by one signed step of size eps, "
            f"and by {steps} projected steps of {2.5 / steps:g} eps. Chance is {1 / classes:.1%}.",
            figure=plot_fooling_curves(curves),
            table=Table(("eps", *(f"{name}, {what}" for name in curves for what in ("success", "margin"))), rows),
            data={"curves": curves},
        ),
    ]


def check_fooling(trials: int, steps: int, threshold: float) -> None:
    """Raises:
    ValueError: naming the option that is not as `fooling_sections` expects it.
    """
    check_count(trials=trials)
    if steps < 2:
        raise ValueError(f"steps: expected an integer >= 2, got {steps!r}")
    check_number("threshold", threshold, 0, 1)

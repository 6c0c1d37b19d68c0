"""What regularisation does to linear classifiers of two classes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pyrobust.analysis.geometry import Loss
from pyrobust.analysis.page import Section
from pyrobust.analysis.session import Session
from pyrobust.analysis.slider import DPI, Slider
from pyrobust.analysis.sweep import Sweep, regularisation_sweep
from pyrobust.analysis.sweep_view import SweepView
from pyrobust.attacks._common import check_count, check_positive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = 192  # colours of a frame: half the file, and no difference to see
OBJECTIVE = {"hinge": "Support vector machines", "softplus": "Logistic regressions"}


def linear_sections(
    session: Session,
    classes: tuple[int, int] = (1, 8),
    loss: Loss = "hinge",
    images: int = 3000,
    lambdas: int = 33,
    lowest: float = 0.1,
    highest: float = 1e3,
) -> list[Section]:
    """Classifiers of two classes from overfitted to the nearest-centroid limit: errors, distances, tilt, mirror images.

    Args:
        session: its data, which need a training part; the model is not used.
        classes: the two.
        loss: "hinge" or "softplus".
        images: training samples a class, at most.
        lambdas: how many values of λ, at least 2, evenly on a logarithmic scale.
        lowest, highest: λ, from overfitted to the limit. The default suits digits; for MNIST with 3,000 images a class it is
            0.1 to 10⁷, since λ grows with the number of samples and their squared distances.

    Raises:
        ValueError: naming the argument; there are no training data.
    """
    check_linear(loss, images, lambdas, lowest, highest)
    session.check_two(classes, "classes")
    inputs, labels = (part.to(session.device) for part in session.training_part())
    test_inputs, test_labels = (part.to(session.device) for part in session.data.test)
    values = torch.logspace(math.log10(lowest), math.log10(highest), lambdas, dtype=torch.float64).tolist()
    sweep = regularisation_sweep(
        inputs, labels, test_inputs, test_labels, pairs=[classes], loss=loss, images=images, lambdas=values, work=session.work
    )  # fmt: skip
    view = sweep.view(0, inputs, labels)
    best = int(sweep.test_error[0].argmin())
    sections = [_measures(sweep, best), *_pictures(sweep, view)]
    return [*sections, _animation(sweep, view, best)]


def check_linear(loss: str, images: int, lambdas: int, lowest: float, highest: float) -> None:
    """Raises:
    ValueError: naming the option that is not as `linear_sections` expects it.
    """
    if loss not in OBJECTIVE:
        raise ValueError(f"loss: expected one of {', '.join(OBJECTIVE)}, got {loss!r}")
    check_count(lambdas=lambdas, images=images)
    check_positive(lowest=lowest, highest=highest)
    if lambdas < 2 or lowest >= highest:
        raise ValueError(
            f"lambdas: expected at least 2, and lowest < highest, got {lambdas} from {lowest:g} to {highest:g}"
        )


def _measures(sweep: Sweep, best: int) -> Section:
    low, high = sweep.pairs[0].tolist()
    return Section(
        "Regularisation of linear classifiers",
        f"{OBJECTIVE[sweep.loss]} of class {low} (I) against class {high} (J), {int(sweep.images[0])} training samples each: the "
        f"minimum of λ/2 ‖w‖² + Σ f(y s(x)), b free, for {len(sweep.lambdas)} values of λ. Every gap between primal and dual is at "
        f"most {float(sweep.gap.max()):.1e} of the primal. d_adv is the mean signed distance of the samples from the boundary, "
        "½ ‖j − i‖ cos θ, and d_err the mean distance by which they are misclassified. The test error is least at "
        f"λ = {float(sweep.lambdas[best]):.3g}.",
        figure=sweep.plot(),
        table=sweep.table(),
        data={"sweep": sweep},
    )


def _pictures(sweep: Sweep, view: SweepView) -> list[Section]:
    low, high = sweep.pairs[0].tolist()
    shown = _spread(len(sweep.lambdas), 4)
    sections = [
        Section(
            "Distances and the scaled loss",
            "Signed distances of the training samples from the boundary, y d(x), and the loss as a function of them (line): the "
            "smaller ‖w‖, the more of the samples lie where it is linear.",
            figure=view.plot_distances(shown),
        ),
        Section(
            "Tilting plane",
            "Training samples in the plane of the line that joins the centroids (horizontal) and the weight vector. Distances in "
            "the plane are distances between inputs; the boundary is a line in it.",
            figure=view.plot_planes(shown),
        ),
    ]
    if view.inputs.ndim == 4 and view.inputs.shape[1] in (1, 3):
        mirrors = Section(
            "Mirror images",
            f"The sample x of class {low} and the sample y of class {high} nearest to their centroids, and their mirror images "
            "through the boundary, which are as far behind it as they are before it. Below each the distance from its original; "
            "pixels are cut off at the range of the samples.",
            figure=view.plot_mirrors(_spread(len(sweep.lambdas), 7)),
        )
        sections.append(mirrors)
    return sections


def _animation(sweep: Sweep, view: SweepView, best: int) -> Section:
    return Section(
        "The sweep",
        "Distances with the scaled loss, tilting plane and mirror images, for every λ of the sweep, on the same axes.",
        slider=Slider(
            "λ",
            [f"{value:.3g}" for value in sweep.lambdas.tolist()],
            [_frame(view.plot_frame(index)) for index in range(len(sweep.lambdas))],
            start=best,
        ),
    )


def _frame(figure: Figure) -> bytes:
    """A PNG file of few colours."""
    from PIL import Image

    from pyrobust.evaluation.plots import png, styled

    with styled():
        content = png(figure, DPI)
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").quantize(SHADES).save(file, "PNG", optimize=True)
    return file.getvalue()


def _spread(count: int, shown: int) -> Sequence[int]:
    """So many of ``count`` indices, evenly, from the first to the last."""
    shown = min(shown, count)
    return [round(k * (count - 1) / max(1, shown - 1)) for k in range(shown)]

"""Sections on the toy problem: what a tilted boundary does, and what tilts it."""

from __future__ import annotations

import torch

from pyrobust.analysis.geometry import Loss
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.slider import Slider
from pyrobust.analysis.toy import ToyProblem, tilted_boundaries, toy_problem
from pyrobust.analysis.toy_boundaries import ToyBoundaries, toy_boundaries

NAMES: dict[Loss, str] = {"hinge": "support vector machine", "softplus": "logistic regression"}


def toy_sections() -> list[Section]:
    """The problem, the mirror image over θ, and both classifiers over the weight decay."""
    problem = toy_problem()
    return [_setup(problem), _tilting(), *(_decayed(problem, loss) for loss in NAMES)]


def _setup(problem: ToyProblem) -> Section:
    return Section(
        "Toy problem: two classes on a line",
        "An image is an inner square of brightness a on a ground of brightness b. The classes differ in a alone; one noisy point "
        "p of class I lies on the side of J.",
        figure=problem.plot(),
        data={"inputs": problem.inputs, "labels": problem.labels},
    )


def _tilting() -> Section:
    found = tilted_boundaries(torch.arange(0, 90, 10, dtype=torch.float64).deg2rad())
    degrees = [f"{angle:g}°" for angle in found.angle.rad2deg().round(decimals=1).tolist()]
    return Section(
        "Toy problem: the mirror image over the tilting angle",
        "All lines through the middle separate the classes. An image x and its mirror image are 2 |a| cos θ apart: upright, the "
        "mirror image looks like the other class; strongly tilted, it looks like x, and is an adversarial example of it.",
        figure=found.plot(),
        slider=Slider("tilting angle θ", degrees, [found.plot_boundary(i) for i in range(len(degrees))]),
        data={"angle": found.angle, "distance": found.distance},
    )


def _decayed(problem: ToyProblem, loss: Loss) -> Section:
    found = toy_boundaries(problem, loss)
    shown = range(0, len(found.decay), 4)
    values = [f"{found.decay[i]:.2g}" for i in shown]
    return Section(
        f"Toy problem: {NAMES[loss]} and weight decay",
        f"The boundary of least mean {loss} loss plus λ/2 ‖w‖². With little decay it tilts to get the noisy point p right, and "
        "comes close to all the others; with more, p is given up and the boundary stands upright.",
        figure=found.plot(),
        slider=Slider("weight decay λ", values, [found.plot_boundary(i) for i in shown]),
        table=_table(found, shown),
        data={name: getattr(found, name) for name in ("decay", "weight", "bias", "angle", "error", "distance")},
    )


def _table(found: ToyBoundaries, shown: range) -> Table:
    rows = [
        (
            f"{found.decay[i]:.2g}",
            f"{found.weight[i].norm():.3g}",
            f"{found.angle[i].rad2deg():.1f}°",
            f"{found.distance[i]:.3f}",
            "yes" if found.fits_noisy[i] else "no",
        )
        for i in shown
    ]
    return Table(("λ", "‖w‖", "θ", "d_adv", "p fitted"), rows)

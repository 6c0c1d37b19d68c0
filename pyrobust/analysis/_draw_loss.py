"""Pictures of losses over histograms of scores and distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, NORM_LABELS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.loss_translation import LossTranslation

BINS = 50
MISCLASSIFIED, CORRECT = COLOURS[1], "#9ecae1"


def draw_scores(found: LossTranslation) -> Figure:
    with styled():
        figure = Figure(figsize=(7.2, 2.5), layout="constrained")
        FigureCanvasAgg(figure)
        by_class, by_label, with_loss = figure.subplots(1, 3, sharey=True)
        reach = 1.05 * float(found.score.abs().max())
        bins = np.linspace(-reach, reach, BINS)
        for label in (0, 1):
            counts, _ = np.histogram(found.score[found.labels == label].numpy(), bins)
            by_class.stairs(counts, bins, fill=True, color=COLOURS[label], alpha=0.65, label=f"class {label}")
        by_class.axvline(0, color="#444444", linewidth=0.8)
        by_class.set_xlabel("$w \\cdot x + b$")
        by_class.set_ylabel("samples")
        margin = found.distance * found.length
        for axis in (by_label, with_loss):
            _histogram(axis, margin, bins)
            axis.set_xlabel("$y\\,(w \\cdot x + b)$")
        by_label.legend(loc="upper left")
        by_class.legend(loc="upper left")
        by_class.set_ylim(top=1.45 * by_class.get_ylim()[1])  # room for the legends
        grid = torch.linspace(-reach, reach, 301, dtype=torch.float64)
        _over(with_loss, grid, found.penalty(grid / found.length), f"{found.loss} loss")
    return figure


def draw_loss(found: LossTranslation, scale: float, eps: float) -> Figure:
    distance = found.distance
    low, high = float(distance.min()), float(distance.max())
    # Room for shifts up to where all the data is misclassified, and the same axes whatever the shift.
    left, right = min(low, -high) * 1.05, high * 1.05
    with styled():
        risk = found.risk(scale=scale, eps=eps)
        length = scale * found.length
        title = (
            rf"$\|w\|$ = {length:.3g}, $\varepsilon$ = {eps:.3g}: risk {risk:.3g}, error {100 * found.error(eps):.1f} %"
        )
        figure, (axis,) = panels([title], height=2.9)
        bins = np.linspace(left, right, 2 * BINS)
        if eps > 0:
            counts, _ = np.histogram(distance.numpy(), bins)
            axis.stairs(counts, bins, color="#888888", linewidth=0.8, label=r"$\varepsilon = 0$")
        _histogram(axis, distance - eps, bins)
        axis.set_xlim(left, right)
        shift = r" - \varepsilon" if eps > 0 else ""
        axis.set_xlabel(rf"$y\,d(x){shift}$ in {NORM_LABELS[found.norm]}")
        axis.set_ylabel("samples")
        axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the legend
        axis.legend(loc="upper right")
        grid = torch.linspace(left, right, 401, dtype=torch.float64)
        _over(axis, grid, found.penalty(grid, scale), f"{found.loss} loss")
    return figure


def _histogram(axis: Axes, values: Tensor, bins: NDArray[np.float64]) -> None:
    """All samples, and those misclassified among them in front."""
    wrong = values <= 0
    for part, colour, name in ((slice(None), CORRECT, "correct"), (wrong, MISCLASSIFIED, "misclassified")):
        counts, _ = np.histogram(values[part].numpy(), bins)
        axis.stairs(counts, bins, fill=True, color=colour, label=name)
    axis.axvline(0, color="#444444", linewidth=0.8)


def _over(axis: Axes, grid: Tensor, penalty: Tensor, label: str) -> None:
    """The loss on an axis of its own, on the right."""
    twin = axis.twinx()
    twin.plot(grid.numpy(), penalty.numpy(), color="black", linewidth=1.4)
    twin.set_ylabel(label)
    twin.set_ylim(0, 1.05 * float(penalty.max()))
    twin.grid(False)
    twin.spines["right"].set_visible(True)

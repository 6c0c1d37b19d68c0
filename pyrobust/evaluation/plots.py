"""Figures of a report: curves, histograms and example images, drawn without any global matplotlib state."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyrobust.evaluation.examples import Examples
from pyrobust.evaluation.metrics import median_distance
from pyrobust.evaluation.outcomes import BEST, Outcome
from pyrobust.evaluation.results import Report

# Okabe and Ito's colours, told apart with any colour vision and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", ":", "-.")  # once the colours are used up
INSIDE = 4  # legends of so many lines stand inside their panel
NORM_LABELS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$", "l0": r"$\ell_0$"}
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.constrained_layout.hspace": 0.06,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "pyrobust",  # else element ids are random, and the same results give another file
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the package's style, whatever the caller's matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def panels(titles: Sequence[str], height: float = 2.35) -> tuple[Figure, list[Axes]]:
    """A figure with one titled panel each, two a row; a single panel has the width of one and a half."""
    columns = min(2, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(7.2 if columns == 2 else 4.8, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(titles) :]:
        axis.remove()
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, loc="left")
    return figure, axes[: len(titles)]


def draw_curves(report: Report) -> Figure:
    """Robust accuracy over eps, a panel a norm, a line an attack."""
    most = max(len(report.of(norm)) for norm in report.norms)
    below = most > INSIDE  # a longer legend would cover the curves
    figure, axes = panels([NORM_LABELS[n] for n in report.norms], height=2.35 + 0.16 * most * below)
    for axis, norm in zip(axes, report.norms, strict=True):
        outcomes = report.of(norm)
        for number, outcome in enumerate(outcomes):
            turn, place = divmod(number, len(COLOURS) - 1)
            if outcome.attack == BEST:
                draw_curve(axis, outcome, COLOURS[-1], "--")
            else:
                draw_curve(axis, outcome, COLOURS[place], LINES[turn % len(LINES)])
        finish_curves(axis, norm, max(o.area()[1] for o in outcomes))
        if below:
            axis.legend(loc="upper left", bbox_to_anchor=(0, -0.26), borderaxespad=0)
        else:
            axis.legend(loc="upper right")
    return figure


def draw_curve(axis: Axes, outcome: Outcome, colour: str, line: str) -> None:
    """One outcome: steps where every eps is known, marked points joined by lines where a few were swept."""
    eps, accuracy = outcome.curve()
    label = outcome.attack
    if outcome.budgets:
        axis.plot(eps, 100 * accuracy, line, color=colour, marker="o", markersize=3, linewidth=1.2, label=label)
    else:
        axis.step(eps, 100 * accuracy, line, where="post", color=colour, linewidth=1.3, label=label)


def finish_curves(axis: Axes, norm: str, d_max: float) -> None:
    """Labels and limits that all curve panels share."""
    axis.set_xlim(0, d_max * 1.02 or 1)
    axis.set_ylim(0, 102)
    axis.set_xlabel(eps_label(norm))
    axis.set_ylabel("robust accuracy (%)")


def eps_label(norm: str) -> str:
    """The label of an axis of perturbation sizes."""
    return r"$\varepsilon$" + (" (pixels or values changed)" if norm == "l0" else "")


def draw_histograms(report: Report) -> Figure | None:
    """Minimum norms of the initially correct samples that were broken; None without a minimum-norm attack."""
    outcomes = [o for o in report.outcomes if not o.budgets]
    if not outcomes:
        return None
    figure, axes = panels([f"{NORM_LABELS[o.norm]} · {o.attack}" for o in outcomes], height=2.1)
    for axis, outcome in zip(axes, outcomes, strict=True):
        _draw_histogram(axis, outcome)
    return figure


def _draw_histogram(axis: Axes, outcome: Outcome) -> None:
    distances = outcome.distances[outcome.correct]
    broken = distances[np.isfinite(distances)]
    axis.set_xlabel("norm of the smallest perturbation found")
    axis.set_ylabel("samples")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if not broken.size:
        axis.text(0.5, 0.5, "none found", transform=axis.transAxes, ha="center")
        return
    if outcome.norm == "l0":
        width = max(1, math.ceil((broken.max() - broken.min() + 1) / 30))
        bins: list[float] | int = np.arange(broken.min() - 0.5, broken.max() + width, width).tolist()
    else:
        bins = 30
    counts, _, _ = axis.hist(broken, bins=bins, color="#9ecae1", edgecolor="#3b78a8", linewidth=0.5)
    axis.set_xlim(left=0)
    median = median_distance(outcome.correct, outcome.distances)
    if median is not None and math.isfinite(median):
        axis.axvline(median, color="#222222", linewidth=1, linestyle="--", label=f"median {median:.3g}")
        axis.set_ylim(top=1.22 * float(np.max(counts)))  # room for the legend
        axis.legend(loc="upper right")


def draw_examples(examples: Examples) -> Figure:
    """Originals above; below, for each norm, the adversarial images and the perturbations that made them."""
    count, rows = len(examples.labels), 1 + 2 * len(examples.rows)
    cell = 7.2 / (count + 0.9)
    figure = Figure(figsize=(7.2, rows * cell * 1.24))
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, count, squeeze=False)
    figure.subplots_adjust(left=0.9 / (count + 0.9), right=0.995, top=0.985, bottom=0.03, wspace=0.08, hspace=0.34)
    for axis in grid.flat:
        axis.set_axis_off()
    _name_row(grid[0], "original")
    for column, (image, label) in enumerate(zip(examples.originals, examples.labels, strict=True)):
        _show(grid[0, column], image, examples.bounds, f"class {label}")
    for number, row in enumerate(examples.rows):
        upper, lower = grid[1 + 2 * number], grid[2 + 2 * number]
        _name_row(upper, NORM_LABELS[row.norm] + "\nadversarial")
        _name_row(lower, NORM_LABELS[row.norm] + "\nperturbation")
        for column, point in enumerate(row.points):
            if point is None:
                upper[column].text(0.5, 0.5, "none\nfound", ha="center", va="center", color="#777777", fontsize=7)
                continue
            _show(upper[column], point, examples.bounds, f"class {row.predictions[column]}")
            delta = point - examples.originals[column]
            _show_perturbation(lower[column], delta, f"{row.distances[column]:.3g}")
    return figure


def _name_row(axes: Sequence[Axes], name: str) -> None:
    axes[0].text(-0.12, 0.5, name, transform=axes[0].transAxes, ha="right", va="center", fontsize=7.5)


def _show(axis: Axes, image: NDArray[np.float32], bounds: tuple[float, float], caption: str) -> None:
    low, high = bounds
    pixels = ((image.transpose(1, 2, 0) - low) / (high - low)).clip(0, 1)
    axis.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
    _caption(axis, caption)


def _show_perturbation(axis: Axes, delta: NDArray[np.float32], caption: str) -> None:
    largest = float(np.abs(delta).max()) or 1.0
    if len(delta) == 3:
        axis.imshow((0.5 + delta.transpose(1, 2, 0) / (2 * largest)).clip(0, 1))
    else:
        axis.imshow(delta[0], cmap="RdBu_r", vmin=-largest, vmax=largest)
    _caption(axis, caption)


def _caption(axis: Axes, text: str) -> None:
    axis.text(0.5, -0.04, text, transform=axis.transAxes, ha="center", va="top", fontsize=6.5, color="#333333")


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def svg_uri(figure: Figure) -> str:
    """The figure as an SVG data URI: sharp at any size, and apart from the styles and ids of the page around it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_uri(content: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")

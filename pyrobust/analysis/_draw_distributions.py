"""Figures of robustness distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyrobust.analysis._draw_transfer import annotate
from pyrobust.evaluation.plots import COLOURS, LINES, NORM_LABELS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.distributions import RobustnessDistribution

_POINTS = 400


def draw_densities(distributions: Mapping[str, RobustnessDistribution]) -> Figure:
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        top = max((_end(one) for one in distributions.values()), default=1)
        at = torch.linspace(0, top, _POINTS, dtype=torch.float64)
        for number, (name, one) in enumerate(distributions.items()):
            turn, place = divmod(number, len(COLOURS))
            colour = COLOURS[place]
            axis.plot(
                at, one.density(at), LINES[turn % len(LINES)], color=colour, linewidth=1.4, label=_named(name, one)
            )
            axis.fill_between(at, one.density(at), color=colour, alpha=0.1, linewidth=0)
            _mark_median(axis, one, colour)
        axis.plot([], [], linestyle="", marker=6, color="#555555", label="median of the correct samples")
        axis.legend(loc="upper right")
        _label_density(axis, next(iter(distributions.values())), top)
        axis.set_ylim(bottom=0)
        return figure


def draw_distribution(one: RobustnessDistribution) -> Figure:
    with styled():
        figure = Figure(figsize=(7.2, 5.6 if one.classes <= 20 else 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(
            2 if one.classes <= 20 else 1, 2, height_ratios=(1, 1.25) if one.classes <= 20 else None
        )
        _density(figure.add_subplot(grid[0, 0]), one)
        _classes(figure.add_subplot(grid[0, 1]), one)
        if one.classes <= 20:  # numbers in more cells could not be read
            _confusion(figure.add_subplot(grid[1, :]), one)
        return figure


def _density(axis: Axes, one: RobustnessDistribution) -> None:
    top = _end(one)
    at = torch.linspace(0, top, _POINTS, dtype=torch.float64)
    ratios = one.ratios[one.broken].numpy()
    if ratios.size:
        edges = np.linspace(0, top, 31).tolist()
        weights = np.full(len(ratios), 1 / (int(one.correct.sum()) * (edges[1] - edges[0])))
        axis.hist(ratios, edges, weights=weights, color="#9ecae1", edgecolor="#3b78a8", linewidth=0.5)
        axis.plot(at, one.density(at), color=COLOURS[1], linewidth=1.4)
    else:
        axis.text(0.5, 0.5, "none found", transform=axis.transAxes, ha="center")
    axis.set_title(f"broken: {int(one.broken.sum())} of {int(one.correct.sum())} correct samples", loc="left")
    _label_density(axis, one, top)


def _classes(axis: Axes, one: RobustnessDistribution) -> None:
    low, middle, high = one.quantiles((0.1, 0.5, 0.9)).numpy().T
    rows = np.arange(one.classes + 1)
    names = [*map(str, range(one.classes)), "all"]
    finite = np.concatenate([low, middle, high])
    edge = 1.08 * max(finite[np.isfinite(finite)], default=1.0)
    axis.hlines(rows, low, np.where(np.isfinite(high), high, edge), color="#9ecae1", linewidth=3)
    axis.plot(middle, rows, "o", color=COLOURS[0], markersize=3.5)
    axis.set_xlim(0, edge)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    if len(rows) <= 21:
        axis.set_yticks(rows, names)
    axis.set_xlabel(f"{NORM_LABELS[one.norm]} distance (median, 10 % to 90 %)")
    axis.set_ylabel("class")


def _confusion(axis: Axes, one: RobustnessDistribution) -> None:
    counts = one.confusion().double().numpy()
    shown = counts.copy()
    np.fill_diagonal(shown, np.nan)
    names = tuple(map(str, range(one.classes)))
    most = np.nanmax(shown) if one.classes > 1 and np.isfinite(shown).any() else 1
    annotate(axis, shown, names, names, "{:.0f}", "Blues", (0, max(most, 1)))
    for number, failures in enumerate(np.diag(counts)):
        if failures:
            axis.texts[number * (one.classes + 1)].set_text(f"({failures:.0f})")
    axis.set_xlabel("class of the adversarial example (in brackets: none found)")
    axis.set_ylabel("class")


def _mark_median(axis: Axes, one: RobustnessDistribution, colour: str) -> None:
    """A mark at the median of all correct samples, failures included, where it is finite."""
    ordered = one.ratios[one.correct].sort().values
    if len(ordered) and torch.isfinite(middle := ordered[(len(ordered) - 1) // 2]):
        axis.plot([middle], [0], marker=6, color=colour, markersize=6, clip_on=False, zorder=5)


def _named(name: str, one: RobustnessDistribution) -> str:
    failed = "" if one.success == 1 else f", {100 * one.success:.1f} % broken"
    return rf"{name} ($\rho$ = {one.rho:.3f}{failed})"


def _label_density(axis: Axes, one: RobustnessDistribution, top: float) -> None:
    letter = NORM_LABELS[one.norm].strip("$")
    axis.set_xlabel(rf"$\rho = \Vert r \Vert_{{{letter}}} \, / \, \Vert x \Vert_{{{letter}}}$".replace(r"\ell_", ""))
    axis.set_ylabel("density")
    axis.set_xlim(0, top)


def _end(one: RobustnessDistribution) -> float:
    """Where the axis of ρ ends: beyond the largest, and the tail of its kernel."""
    ratios = one.ratios[one.broken]
    return 1.15 * float(ratios.max()) if len(ratios) and float(ratios.max()) > 0 else 1.0

"""Figures of activation patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrobust.analysis._draw_linearity import DISTANCE, finish, legend, lines
from pyrobust.evaluation.plots import panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.activations import CellSizes, SharedActivations


def draw_shared(
    results: Mapping[str, SharedActivations],
    beside: Mapping[str, SharedActivations] | None = None,
    mark: float | None = None,
) -> Figure:
    """Shares by network and direction; ``beside``: the same off the data, in a second panel with the same scale; ``mark``: a
    distance to be pointed out."""
    with styled():
        figure, axes = panels(["at the data", "at noise images"] if beside else [""], height=2.9)
        lowest = 100.0
        for axis, shown in zip(axes, [results, *([beside] if beside else [])], strict=True):
            lowest = min(lowest, _shares(axis, shown, mark))
        for axis in axes:
            axis.set_ylim(lowest - 0.05 * (100 - lowest), 100 + 0.02 * (100 - lowest))
            axis.set_ylabel("activations in common (%)")
        legend(figure, axes[0], "lower left", results)
        return figure


def _shares(axis: Axes, results: Mapping[str, SharedActivations], mark: float | None) -> float:
    lowest = 100.0
    for colour, stroke, label, one, direction in lines(results, lambda one: one.shared):
        shares = 100 * one.shared[direction]
        mean = shares.mean(1)
        error = 2 * shares.std(1, correction=0) / shares.shape[1] ** 0.5
        axis.plot(one.distances, mean, stroke, color=colour, linewidth=1.3, label=label)
        axis.fill_between(one.distances, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        lowest = min(lowest, float(mean.min()))
    finish(axis, DISTANCE, mark)
    return lowest


def draw_cells(results: Mapping[str, CellSizes]) -> Figure:
    """Cumulative shares of samples over the distance at which their cells end, on a logarithmic axis."""
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        for colour, stroke, label, one, direction in lines(results, lambda one: one.sizes):
            sizes = one.sizes[direction].double().sort().values
            share = 100 * torch.arange(1, len(sizes) + 1) / len(sizes)
            inside = sizes.isfinite()
            axis.step(sizes[inside], share[inside], stroke, where="post", color=colour, linewidth=1.3, label=label)
        axis.set_xscale("log")
        axis.set_xlabel(r"distance $\|z\|_2$ to the edge of the cell")
        axis.set_ylabel("samples (%)")
        axis.set_ylim(0, 102)
        legend(figure, axis, "upper left", results)
        return figure

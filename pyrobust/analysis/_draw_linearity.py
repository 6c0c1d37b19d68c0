"""Figures of local linearity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.linearity import LocalLinearity

T = TypeVar("T")
STROKES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
DISTANCE = r"distance $\|z\|_2$ from the input"


def draw_linearity(results: Mapping[str, LocalLinearity], mark: float | None = None) -> Figure:
    """Medians over samples, the middle half shaded: a colour a network, a stroke a direction; one network's directions in
    colours. ``mark``: a distance to be pointed out."""
    with styled():
        figure, (left, right) = panels(["", ""], height=2.9)
        for colour, stroke, label, one, direction in lines(results, lambda one: one.deviation):
            for axis, values in ((left, one.deviation), (right, one.largest_singular)):
                band(axis, one.distances, values[direction], colour, stroke, label)
        left.set_ylabel(r"deviation $\|f(x+z)-f(x)-J(x)z\|_2$")
        right.set_ylabel(r"largest singular value $\sigma(J(x+z))$")
        for axis in (left, right):
            finish(axis, DISTANCE, mark)
            axis.set_ylim(bottom=0)
        legend(figure, left, "upper left", results)
        return figure


def lines(
    results: Mapping[str, T], by_direction: Callable[[T], Iterable[str]]
) -> Iterator[tuple[str, str, str, T, str]]:
    """(colour, stroke, label, result, direction) of each line."""
    for number, (name, one) in enumerate(results.items()):
        for place, direction in enumerate(by_direction(one)):
            colour = COLOURS[(place if len(results) == 1 else number) % len(COLOURS)]
            label = direction if len(results) == 1 else f"{name}, {direction}"
            yield colour, STROKES[place % len(STROKES)], label, one, direction


def band(axis: Axes, x: Tensor, values: Tensor, colour: str, stroke: str, label: str) -> None:
    """Median of (T, N) over N, and its quartiles shaded."""
    low, middle, high = torch.quantile(values.double(), torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=1)
    axis.plot(x, middle, stroke, color=colour, linewidth=1.3, label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def finish(axis: Axes, label: str, mark: float | None) -> None:
    if mark is not None:
        axis.axvline(mark, color="#555555", linewidth=0.9, linestyle=(0, (1, 1)))
    axis.set_xlabel(label)
    axis.set_xlim(left=0)


def legend(figure: Figure, axis: Axes, where: Literal["upper left", "lower left"], results: Iterable[str]) -> None:
    """Directions in the panel; for several networks these by colour and directions by stroke, below the figure."""
    names, (_, labels) = list(results), axis.get_legend_handles_labels()
    if len(names) == 1:
        axis.legend(loc=where)
        return
    directions = dict.fromkeys(label.rpartition(", ")[2] for label in labels)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=1.3, label=name) for i, name in enumerate(names)
    ]
    handles += [
        Line2D([], [], color="#555555", linestyle=STROKES[i % len(STROKES)], linewidth=1.3, label=direction)
        for i, direction in enumerate(directions)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)

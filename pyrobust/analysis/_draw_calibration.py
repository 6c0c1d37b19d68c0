"""Reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrobust.evaluation.plots import COLOURS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.calibration import Calibration, Reliability


def draw_calibration(one: Calibration) -> Figure:
    shown = {"as it is": one.plain, "least loss": one.scaled, "median confidence 0.95": one.median}
    return draw_reliability({name: result for name, result in shown.items() if result is not None})


def draw_reliability(results: Mapping[str, Reliability]) -> Figure:
    """A panel for each, by name."""
    with styled():
        titles = [
            f"t = {r.temperature:.3g}{', ' if name else ''}{name}: ECE {100 * r.ece:.1f} %"
            for name, r in results.items()
        ]
        figure, axes = panels(titles, height=2.7)
        for axis, result in zip(axes, results.values(), strict=True):
            _reliability(axis, result)
        axes[0].legend(loc="upper left")
        return figure


def _reliability(axis: Axes, one: Reliability) -> None:
    filled = one.counts > 0
    edges, widths = one.edges[:-1][filled].numpy(), one.edges.diff()[filled].numpy()
    shares = (one.counts[filled] / one.counts.sum()).numpy()
    axis.bar(edges, shares, widths, align="edge", color="#d9d9d9", linewidth=0, label="share of the samples")
    axis.plot([0, 1], [0, 1], color="#555555", linewidth=0.9, linestyle="--")
    points = one.confidence[filled], one.accuracy[filled]
    axis.plot(*points, "o", markersize=4.5, color=COLOURS[0], label="accuracy", clip_on=False)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("confidence (largest probability)")
    axis.set_ylabel("accuracy")

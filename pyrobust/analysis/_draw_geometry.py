"""Pictures of a linear classifier: its tilting plane, and distances with the loss over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.tilting import TiltingPlane

Range = tuple[float, float]
BINS = 60


def draw_plane(plane: TiltingPlane) -> Figure:
    with styled():
        figure, (axis,) = panels([""], height=3.4)
        plane_axis(axis, plane)
        axis.legend(loc="upper left", fontsize=7.5)
    return figure


def plane_axis(axis: Axes, plane: TiltingPlane, limits: tuple[Range, Range] | None = None) -> None:
    """Samples, means and boundary; ``limits`` of both coordinates, default those of the samples."""
    points, labels = plane.points.cpu().numpy(), plane.labels.cpu().numpy()
    size = 2.2 if len(points) > 1000 else 4.0
    for label, name in ((0, "I"), (1, "J")):
        chosen = points[labels == label]
        colour = COLOURS[label]
        axis.plot(*chosen.T, ".", color=colour, markersize=size, alpha=0.5, markeredgewidth=0, rasterized=True)
        axis.plot([], [], ".", color=colour, markersize=6, label=f"class {name}")  # large enough for a legend
    (left, right), (low, high) = limits or (_range(points[:, 0]), _range(points[:, 1]))
    centroids = plane.centroids.cpu().numpy()
    axis.plot(centroids[:, 0], centroids[:, 1], "-o", color="black", linewidth=0.9, markersize=4, label="centroids")
    cosine, sine = plane.normal.tolist()
    reach = 2 * (abs(left) + abs(right) + abs(low) + abs(high) + abs(plane.offset))
    foot = np.array([-plane.offset * cosine, -plane.offset * sine])
    along = reach * np.array([-sine, cosine])
    ends = np.stack([foot - along, foot + along])
    axis.plot(ends[:, 0], ends[:, 1], color=COLOURS[2], linewidth=1.6, label="boundary")
    axis.set_aspect("equal", adjustable="datalim" if limits is None else "box")
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
    axis.set_xlabel(r"$x \cdot \hat z$")
    axis.set_ylabel(r"$x \cdot \hat n$")


def distances_axis(axis: Axes, distances: Tensor, loss: Tensor, grid: Tensor, top: float) -> None:
    """A histogram of y d(x), misclassified samples apart, and the scaled loss on ``grid``.

    Args:
        distances: (N,).
        loss: like ``grid``, the scaled loss at it.
        grid: (M,), increasing: the range drawn.
        top: of the loss's axis.
    """
    bins = np.linspace(float(grid[0]), float(grid[-1]), BINS).tolist()
    wrong = distances <= 0
    axis.hist(
        [distances[wrong].numpy(), distances[~wrong].numpy()], bins, stacked=True, color=[COLOURS[1], "#bdbdbd"],
        label=["misclassified", "correct"],
    )  # fmt: skip
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_xlim(float(grid[0]), float(grid[-1]))
    axis.set_xlabel(r"$y\,d(x)$")
    axis.set_ylabel("samples")
    over = axis.twinx()
    over.plot(grid.numpy(), loss.numpy(), color=COLOURS[0], linewidth=1.6)
    over.set_ylim(0, top)
    over.set_ylabel(r"$f_{\|w\|}$", color=COLOURS[0])
    over.tick_params(axis="y", colors=COLOURS[0])
    over.spines["right"].set_visible(True)
    over.grid(False)


def _range(values: NDArray[np.float64]) -> Range:
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room

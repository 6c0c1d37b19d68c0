"""The figure of a transfer matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyrobust.evaluation.plots import styled

if TYPE_CHECKING:
    from pyrobust.analysis.transfer import TransferMatrix


def draw_transfer(matrix: TransferMatrix) -> Figure:
    size = len(matrix.names)
    with styled():
        figure = Figure(figsize=(7.2, 1.5 + 0.5 * size), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        annotate(left, 100 * matrix.success.numpy(), matrix.names, matrix.names, "{:.0f}", "Blues", (0, 100))
        left.set_title("fooled (%)", loc="left")
        gap = 100 * matrix.gap.numpy()
        annotate(right, gap, matrix.names, matrix.names, "{:+.0f}", "RdBu", (-100, 100))
        right.set_title("white box − transferred (points)", loc="left")
        for axis in (left, right):
            axis.set_xlabel("target")
        left.set_ylabel("points made on")
        right.set_yticklabels([])
        return figure


def annotate(
    axis: Axes, values: np.ndarray, rows: tuple[str, ...], columns: tuple[str, ...], form: str, colours: str,
    limits: tuple[float, float],
) -> None:  # fmt: skip
    """A matrix as an image with its numbers; – for NaN."""
    image = axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    slanted: dict[str, Any] = (
        {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if max(map(len, columns)) > 3 else {}
    )
    axis.set_xticks(range(len(columns)), columns, **slanted)
    axis.set_yticks(range(len(rows)), rows)
    for (row, column), value in np.ndenumerate(values):
        dark = np.isfinite(value) and np.mean(image.cmap(image.norm(value))[:3]) < 0.5
        text = form.format(value) if np.isfinite(value) else "–"
        axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color="white" if dark else "#222222")

"""Pictures of linear classifiers: weights as images, and accuracy curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyrobust.evaluation.metrics import step_curve
from pyrobust.evaluation.plots import COLOURS, LINES, NORM_LABELS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.linear_robustness import ExtremePixels, LinearRobustness
    from pyrobust.analysis.logistic import WeightImages

COLUMNS = 6


def draw_weights(found: WeightImages) -> Figure:
    rows = {"weights": found.weight, "FGSM": found.sign, "fast gradient,\nclipped": found.gradient}
    count = len(found.names)
    blocks = -(-count // COLUMNS)  # more models than columns go on below
    with styled():
        figure = Figure(
            figsize=(1.15 * min(count, COLUMNS) + 0.9, (1.12 * len(rows) + 0.25) * blocks), layout="constrained"
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(rows) * blocks, min(count, COLUMNS), squeeze=False)
        _bare(grid)
        for number, name in enumerate(found.names):
            block, column = divmod(number, COLUMNS)
            axes = grid[block * len(rows) : (block + 1) * len(rows), column]
            lines = [*name.split(", "), f"{found.angle[number]:.0f}°"]
            axes[0].set_title("\n".join(lines), fontsize=7.5)
            for axis, (row, values) in zip(axes, rows.items(), strict=True):
                _show(axis, values[number])
                if column == 0:
                    axis.set_ylabel(row, rotation=0, ha="right", va="center")
    return figure


def draw_robustness(found: LinearRobustness) -> Figure:
    lines = [step_curve(row.numpy()) for row in found.distance]
    finite = found.distance[found.distance.isfinite()]
    reach = float(finite.max()) if finite.numel() else 0.0
    label = rf"$\varepsilon$ ({NORM_LABELS[found.norm]}" + (", values changed)" if found.norm == "l0" else ")")
    with styled():
        figure, axis = _curves(len(found.names))
        for number, (name, (eps, accuracy)) in enumerate(zip(found.names, lines, strict=True)):
            ends = [*eps, max(reach, eps[-1])], 100 * np.append(accuracy, accuracy[-1])
            axis.step(*ends, where="post", **_style(number), label=name)
        _finish(axis, reach, label, "robust accuracy (%)")
    return figure


def draw_extremes(found: ExtremePixels) -> Figure:
    with styled():
        figure, axis = _curves(len(found.names))
        for number, (name, accuracy) in enumerate(zip(found.names, found.accuracy, strict=True)):
            axis.plot(found.pixels.numpy(), 100 * accuracy.numpy(), **_style(number), label=name)
        axis.axhline(50, color="#888888", linewidth=0.8, zorder=1)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axis, float(found.pixels[-1]), "values set to the upper bound, at either end", "accuracy (%)")
    return figure


def draw_candidates(rows: Mapping[str, Tensor], captions: Mapping[str, Sequence[str]]) -> Figure:
    """A row of images (S, C, H, W) in [0, 1] for each name, with captions below."""
    count = max(len(images) for images in rows.values())
    with styled():
        figure = Figure(figsize=(0.95 * count + 1.1, 1.15 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(rows), count, squeeze=False)
        _bare(grid)
        for axes, (name, images) in zip(grid, rows.items(), strict=True):
            axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
            for axis, image, caption in zip(axes, images, captions[name], strict=True):
                pixels = image.permute(1, 2, 0).numpy()
                axis.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
                axis.set_xlabel(caption, labelpad=2, fontsize=7)
    return figure


def _bare(grid: Any) -> None:
    for axis in grid.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.grid(False)


def _curves(count: int) -> tuple[Figure, Axes]:
    figure, (axis,) = panels([""], height=2.6 + 0.09 * count)
    return figure, axis


def _style(number: int) -> dict[str, Any]:
    turn, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "linestyle": LINES[turn % len(LINES)], "linewidth": 1.3}


def _finish(axis: Axes, reach: float, x_label: str, y_label: str) -> None:
    axis.set_xlim(0, reach or 1)
    axis.set_ylim(0, 102)
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0)


def _show(axis: Axes, values: Tensor) -> None:
    """Red speaks for class 1, blue for class 0; channels are added up, and a vector is shown as one row."""
    image = values if values.ndim > 1 else values.reshape(1, -1)
    image = image.reshape(-1, *image.shape[-2:]).sum(0)
    largest = float(image.abs().max()) or 1.0
    axis.imshow(image.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")

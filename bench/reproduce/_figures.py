"""The figures of the scripts: curves in panels, and rows of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, panels, png, styled

DPI = 130
Line = tuple[Sequence[float], Sequence[float]]


def curves(
    path: Path,
    title: str,
    lines: Mapping[str, Line],
    x_label: str,
    y_label: str,
    *,
    styles: Mapping[str, tuple[int, str]] | None = None,
    ticks: Sequence[float] | None = None,
) -> None:
    """A line a name: (x, y), y in [0, 1] drawn in %.

    Args:
        styles: the number of the colour and the line style by name; default: another colour each, solid.
        ticks: of x, which is then drawn on a logarithmic scale that is linear up to the second of them.
    """
    with styled():
        figure, (axis,) = panels([title], height=2.9)
        for number, (name, (x, y)) in enumerate(lines.items()):
            colour, style = (styles or {}).get(name, (number, "-"))
            shown = {"color": COLOURS[colour % len(COLOURS)], "marker": "o", "markersize": 2.5, "linewidth": 1.2}
            axis.plot(x, 100 * np.asarray(y), style, label=name, **shown)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        top = max(100 * max(y) for _, y in lines.values())
        axis.set_ylim(0, min(1.15 * top, 102) or 1)
        if ticks is not None:
            axis.set_xscale("symlog", base=2, linthresh=ticks[1])
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_xlim(ticks[0], ticks[-1])
        axis.legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure, DPI))


def pictures(
    path: Path,
    rows: Mapping[str, Tensor],
    titles: Sequence[str] | None = None,
    circles: Sequence[tuple[int, int]] | None = None,
    under: Sequence[Sequence[str]] | None = None,
) -> None:
    """A row of images (N, C, H, W) in [0, 1] for each name.

    Args:
        titles: above the columns.
        circles: (row, column) of a pixel of each image of the last row, to be circled.
        under: below each image: a row of texts a row of images.
    """
    count = max(len(row) for row in rows.values())
    with styled():
        size = (0.85 * count + 0.9, (0.85 + (0.2 if under else 0)) * len(rows) + (0.25 if titles else 0))
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(rows), count, squeeze=False)
        for line, (name, row) in zip(axes, rows.items(), strict=True):
            for axis in line:
                axis.set_xticks([])
                axis.set_yticks([])
                axis.spines[:].set_visible(False)
                axis.grid(False)
            for axis, image in zip(line, row.cpu(), strict=False):
                axis.imshow(
                    image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
                )
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, title in zip(axes[0], titles or (), strict=False):
            axis.set_title(title)
        for axis, (top, left) in zip(axes[-1], circles or (), strict=False):
            axis.add_patch(Circle((left, top), 0.09 * row.shape[-1], fill=False, color=COLOURS[1], linewidth=1.3))
        for line, texts in zip(axes, under or (), strict=False):
            for axis, text in zip(line, texts, strict=False):
                axis.set_xlabel(text, labelpad=1.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure, DPI))

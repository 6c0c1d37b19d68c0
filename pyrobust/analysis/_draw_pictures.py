"""Grids of images: saliency maps, recognised images, filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pyrobust.evaluation.plots import styled

if TYPE_CHECKING:
    from pyrobust.analysis.filters import Filters, LayerFilters
    from pyrobust.analysis.recognition import Recognised
    from pyrobust.analysis.saliency import Saliency
    from pyrobust.analysis.visualise import PreferredInputs

_CAPTION = {"fontsize": 7, "color": "#333333", "ha": "center", "va": "top"}
_WIDTH = 7.2  # inches of a figure
_SIDE = 16  # filters a row


def draw_saliency(saliency: Saliency) -> Figure:
    images = _images(saliency.inputs)
    methods = list(saliency.maps)
    with styled():
        # Samples go on to the right in a second block of columns, so that the figure is no tower.
        blocks = 2 if len(images) > 4 else 1
        rows, columns = math.ceil(len(images) / blocks), 1 + len(methods)
        figure = Figure(figsize=(_WIDTH, _WIDTH / (2.2 * columns) * rows * 1.02 + 0.25))
        FigureCanvasAgg(figure)
        parts = figure.subfigures(1, blocks, wspace=0.02, squeeze=False)[0]
        for block, part in enumerate(parts):
            grid = part.subplots(rows, columns, squeeze=False)
            part.subplots_adjust(
                left=0.1, right=0.99, top=1 - 0.25 / figure.get_figheight(), bottom=0.01, wspace=0.06, hspace=0.06
            )
            for axis in grid.flat:
                axis.set_axis_off()
            for axis, title in zip(grid[0], ("image", *methods), strict=True):
                axis.set_title(title, fontsize=8)
            for row, number in enumerate(range(block * rows, min((block + 1) * rows, len(images)))):
                show_image(grid[row, 0], images[number])
                grid[row, 0].text(
                    -0.08, 0.5, f"class {int(saliency.classes[number])}", transform=grid[row, 0].transAxes,
                    rotation=90, fontsize=7, ha="right", va="center",
                )  # fmt: skip
                for axis, method in zip(grid[row, 1:], methods, strict=True):
                    heat = saliency.heat(method)[number].double().numpy()
                    axis.imshow(heat, cmap="inferno", vmin=0, vmax=heat.max() or 1, interpolation="nearest")
        return figure


def draw_recognised(recognised: Recognised) -> Figure:
    captions = []
    for made_for, taken_for, confidence in zip(
        recognised.classes.tolist(), recognised.predictions.tolist(), recognised.confidence.tolist(), strict=True
    ):
        other = "" if made_for == taken_for else f" (seen as {taken_for})"
        captions.append(f"class {made_for}: {100 * confidence:.3g} %{other}")
    return _captioned(_images(recognised.images), captions, 5)


def draw_preferred(preferred: PreferredInputs) -> Figure:
    pairs = zip(preferred.units.tolist(), preferred.activation.tolist(), strict=True)
    return _captioned(_images(preferred.images), [f"unit {unit}: {value:.3g}" for unit, value in pairs], 8)


def draw_filters(filters: Filters) -> Figure:
    layers = [layer for layer in filters.layers if layer.kernels is not None]
    if not layers:
        raise ValueError(
            "filters: expected a layer whose weights are images: a convolution, or a dense layer on an image"
        )
    with styled():
        left = 1.3  # inches for the names
        # One picture a layer: an axis for each kernel would take seconds to draw.
        blocks = [_montage(layer) for layer in layers]
        heights = [(_WIDTH - left) * block.shape[1] / block.shape[2] + 0.12 for block in blocks]
        total = max(sum(heights), 0.5)
        figure = Figure(figsize=(_WIDTH, total))
        FigureCanvasAgg(figure)
        top = 1.0
        for layer, block, height in zip(layers, blocks, heights, strict=True):
            bottom = top - height / total
            axis = figure.add_axes((left / _WIDTH, bottom + 0.06 / total, 1 - left / _WIDTH, (height - 0.12) / total))
            axis.set_axis_off()
            show_image(axis, block)
            figure.text(0.06 / _WIDTH, (top + bottom) / 2, _described(layer), fontsize=7, va="center", linespacing=1.35)
            top = bottom
        return figure


def _montage(layer: LayerFilters) -> np.ndarray:
    """(C, H, W): the kernels `_SIDE` a row on white; 0 is grey, black to white the same for all."""
    assert layer.kernels is not None
    values = layer.kernels.double().numpy()
    kernels = 0.5 + values / (2 * np.abs(values).max() or 1)
    count, channels, h, w = kernels.shape
    scale = max(1, 48 // max(h, w))  # pixels a weight, so that the gaps can be fine
    gap = max(2, max(h, w) * scale // 10)
    high, wide = h * scale + gap, w * scale + gap
    sheet = np.ones((channels, high * math.ceil(count / _SIDE) - gap, wide * _SIDE))
    for number, kernel in enumerate(kernels.repeat(scale, 2).repeat(scale, 3)):
        row, column = divmod(number, _SIDE)
        sheet[:, row * high : (row + 1) * high - gap, column * wide : (column + 1) * wide - gap] = kernel
    return sheet


def _described(layer: LayerFilters) -> str:
    sizes = " × ".join(map(str, layer.shape))
    return f"layer {layer.name}\n{sizes}\nRMS {layer.rms:.3g}"


def _captioned(images: np.ndarray, captions: Sequence[str], columns: int) -> Figure:
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    with styled():
        cell = min(_WIDTH / columns, 1.8)
        height = rows * (cell * images.shape[2] / images.shape[3] + 0.18)
        figure = Figure(figsize=(columns * cell, height))
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            left=0.01, right=0.99, top=1 - 0.02 / height, bottom=0.19 / height, wspace=0.05, hspace=0.2
        )
        for axis in grid.flat:
            axis.set_axis_off()
        for axis, image, caption in zip(grid.flat, images, captions, strict=False):
            show_image(axis, image)
            axis.text(0.5, -0.03, caption, transform=axis.transAxes, **_CAPTION)
        return figure


def show_image(axis: Axes, image: np.ndarray, **options: Any) -> None:
    """(C, H, W) in [0, 1], in grey or colours."""
    pixels = image.transpose(1, 2, 0).clip(0, 1)
    axis.imshow(
        pixels if len(image) == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest", **options
    )


def _images(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3):
        raise ValueError(f"images: expected (N, C, H, W) with 1 or 3 channels to draw, got {tuple(tensor.shape)}")
    return tensor.double().numpy()

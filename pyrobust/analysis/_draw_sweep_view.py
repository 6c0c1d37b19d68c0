"""One pair of classes along a sweep of λ: histograms, tilting planes, mirror images, and frames with all three."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pyrobust.analysis._draw_geometry import Range, distances_axis, plane_axis
from pyrobust.analysis.geometry import scaled_loss
from pyrobust.evaluation.plots import panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.sweep_view import SweepView

LOSS_TOP = 3.0  # of the loss's axis
IMAGES = ("$x$", "$x_m$", "$y$", "$y_m$")


def draw_distances(view: SweepView, indices: Sequence[int]) -> Figure:
    with styled():
        figure, axes = panels([_fit(view, index) for index in indices], height=2.0)
        grid = _grid(view, indices)
        for axis, index in zip(axes, indices, strict=True):
            _distances(axis, view, index, grid)
        axes[0].legend(loc="upper right", fontsize=7)
    return figure


def draw_planes(view: SweepView, indices: Sequence[int]) -> Figure:
    with styled():
        figure, axes = panels([_tilt(view, index) for index in indices], height=3.1)
        for axis, index in zip(axes, indices, strict=True):
            _plane(axis, view, index)
        axes[0].legend(loc="lower left", fontsize=6.5)
    return figure


def draw_mirrors(view: SweepView, indices: Sequence[int]) -> Figure:
    if not _are_images(view):
        raise ValueError(f"inputs: expected images (N, 1 or 3, H, W), got shape {tuple(view.inputs.shape)}")
    originals, bounds = view.representatives, _bounds(view)
    with styled():
        cell = 7.2 / (len(indices) + 1.6)
        figure = Figure(figsize=(7.2, 2 * cell * 1.25 + 0.25), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(2, len(indices) + 1, squeeze=False)
        for row, names in enumerate((IMAGES[:2], IMAGES[2:])):
            _show(grid[row, 0], originals[row], bounds, f"{names[0]}")
            for axis, index in zip(grid[row, 1:], indices, strict=True):
                _show(axis, view.mirrors(index)[row], bounds, f"{names[1]}, {_apart(view, index)[row]:.2f}")
        for axis, index in zip(grid[0, 1:], indices, strict=True):
            axis.set_title(rf"$\lambda = {_power(view, index)}$", fontsize=8)
    return figure


def draw_frame(view: SweepView, index: int) -> Figure:
    pictures = _are_images(view)
    with styled():
        # Placed by hand: a page has dozens of frames, and a layout engine takes longer than all the rest.
        figure = Figure(figsize=(8.4 if pictures else 6.0, 2.9))
        FigureCanvasAgg(figure)
        width = 1.0 if pictures else 8.4 / 6.0
        histogram = figure.add_axes((0.065 * width, 0.16, 0.27 * width, 0.74))
        plane = figure.add_axes((0.47 * width, 0.16, 0.24 * width, 0.74))
        _distances(histogram, view, index, _grid(view, range(len(view.lambdas))))
        histogram.set_ylim(0, 0.4 * len(view.labels))
        _plane(plane, view, index)
        histogram.set_title(_fit(view, index), loc="left", fontsize=8)
        plane.set_title(_tilt(view, index), loc="left", fontsize=8)
        if pictures:
            grid = figure.add_gridspec(2, 2, left=0.74, right=0.99, bottom=0.1, top=0.95, hspace=0.3, wspace=0.05)
            images = torch.stack([view.representatives.double(), view.mirrors(index)], 1).flatten(0, 1)
            apart = _apart(view, index)
            captions = (IMAGES[0], f"{IMAGES[1]}, {apart[0]:.2f}", IMAGES[2], f"{IMAGES[3]}, {apart[1]:.2f}")
            for axis, image, caption in zip(grid.subplots(squeeze=False).flat, images, captions, strict=True):
                _show(axis, image, _bounds(view), caption)
    return figure


def _distances(axis: Axes, view: SweepView, index: int, grid: Tensor) -> None:
    loss = scaled_loss(view.loss, grid, float(view.weight[index].norm()))
    distances_axis(axis, view.distances[index], loss, grid, LOSS_TOP)


def _plane(axis: Axes, view: SweepView, index: int) -> None:
    """Samples and boundary, and lines from the representatives to their mirror images."""
    plane_axis(axis, view.planes[index], _limits(view, index))
    label = "mirror images"
    for track, names in zip(view.tracks[index], (IMAGES[:2], IMAGES[2:]), strict=True):
        axis.plot(*track.T, "o--", color="#7a3b8f", linewidth=0.9, markersize=3, label=label)
        for point, name in zip(track.tolist(), names, strict=True):
            axis.annotate(name, point, (2, 3), textcoords="offset points", color="#7a3b8f", fontsize=7.5)
        label = "_"  # in the legend once


def _grid(view: SweepView, indices: Sequence[int]) -> Tensor:
    """Over all distances at these λ."""
    low, high = view.distances[list(indices)].aminmax()
    return torch.linspace(min(float(low), 0.0), max(float(high), 0.0), 401, dtype=torch.float64)


def _limits(view: SweepView, index: int) -> tuple[Range, Range]:
    """A square with the middle between the centroids in its own, which holds what every plane shows."""
    middles = [plane.centroids.mean(0) for plane in view.planes]
    shown = [torch.cat([p.points, track.flatten(0, 1)]) for p, track in zip(view.planes, view.tracks, strict=True)]
    reach = max(float((points - middle).abs().max()) for points, middle in zip(shown, middles, strict=True))
    across, up = middles[index].tolist()
    return (across - 1.05 * reach, across + 1.05 * reach), (up - 1.05 * reach, up + 1.05 * reach)


def _apart(view: SweepView, index: int) -> Tensor:
    """‖x_m − x‖ of the two representatives."""
    return (view.mirrors(index) - view.representatives.double()).flatten(1).norm(dim=1)


def _fit(view: SweepView, index: int) -> str:
    error = 100 * float((view.distances[index] <= 0).double().mean())
    norm = float(view.weight[index].norm())
    return rf"$\lambda = {_power(view, index)}$: $\|w\|$ = {norm:.3g}, error {error:.1f} %"


def _tilt(view: SweepView, index: int) -> str:
    cosine, sine = view.planes[index].normal.tolist()
    angle, apart = math.degrees(math.atan2(abs(sine), cosine)), float(view.distances[index].mean())
    return rf"$\lambda = {_power(view, index)}$: $\theta$ = {angle:.0f}°, $d_{{adv}}$ = {apart:.2f}"


def _power(view: SweepView, index: int) -> str:
    return f"10^{{{math.log10(float(view.lambdas[index])):.3g}}}"


def _are_images(view: SweepView) -> bool:
    return view.inputs.ndim == 4 and view.inputs.shape[1] in (1, 3)


def _bounds(view: SweepView) -> Range:
    low, high = (float(v) for v in view.inputs.aminmax())
    return low, high


def _show(axis: Axes, image: Tensor, bounds: Range, caption: str) -> None:
    """The image, cut off at the range of the samples."""
    pixels = image.permute(1, 2, 0).squeeze(2).clamp(*bounds)
    low, high = bounds
    axis.imshow(((pixels - low) / (high - low)).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(caption, labelpad=2, fontsize=7.5)

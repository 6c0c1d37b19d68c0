"""Pictures of the toy problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from pyrobust.analysis.linear import mirror_image
from pyrobust.evaluation.plots import COLOURS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.toy import TiltedBoundaries, ToyProblem
    from pyrobust.analysis.toy_boundaries import ToyBoundaries

CLASSES = ("I", "J")
SIDES = ("#eaf3fa", "#fcefe6")  # the half-planes of I and J
SHOWN = torch.tensor([[-0.8, 0.0]], dtype=torch.float64)  # the image whose mirror image is drawn


def draw_problem(problem: ToyProblem) -> Figure:
    rows = [problem.inputs[problem.labels == label] for label in (0, 1)]
    if problem.noisy:
        rows[0] = rows[0][:-1]
    picked = [row[torch.linspace(0, len(row) - 1, 4).round().long()] for row in rows]
    captions = [f"$a = {a:.2f}$" for a, _ in torch.cat(picked).tolist()]
    with styled():
        figure, plane, images = _layout(2, 4)
        _plane(plane)
        _points(plane, problem)
        plane.legend(loc="lower left")
        for axis, point, caption in zip(images, torch.cat(picked), captions, strict=True):
            _show(axis, point, caption)
        for axis, name in zip(images[::4], CLASSES, strict=True):
            axis.set_ylabel(f"class {name}", labelpad=8)
    return figure


def draw_distance(found: TiltedBoundaries) -> Figure:
    with styled():
        figure, (axis,) = panels([""], height=2.6)
        axis.plot(found.angle.rad2deg().cpu().numpy(), found.distance.cpu().numpy(), color=COLOURS[0])
        axis.set_xlabel(r"tilting angle $\theta$ (degrees)")
        axis.set_ylabel(r"$\|x - x_m\|_2$")
        axis.set_ylim(bottom=0)
    return figure


def draw_tilted(found: TiltedBoundaries, index: int) -> Figure:
    theta = found.angle[index]
    normal = torch.stack([theta.cos(), theta.sin()]).cpu()
    title = rf"$\theta$ = {theta.rad2deg():.0f}°: $\|x - x_m\|$ = {found.distance[index]:.2f}"
    image, mirrored = found.image.cpu(), found.mirrored[index].cpu()
    return _with_mirror(normal, 0.0, image, mirrored, title, None)


def draw_decay(found: ToyBoundaries) -> Figure:
    order = found.decay.argsort()
    decay = found.decay[order]
    values = (
        (found.angle[order].rad2deg(), r"tilting angle $\theta$ (degrees)"),
        (found.distance[order], r"$d_{adv}$"),
    )
    fits = found.fits_noisy[order]
    with styled():
        figure, axes = panels(["", ""], height=2.6)
        for axis, (value, label) in zip(axes, values, strict=True):
            axis.semilogx(decay, value, color=COLOURS[0])
            for shown, face, name in ((fits, COLOURS[1], "p fitted"), (~fits, "white", "p given up")):
                if found.problem.noisy and shown.any():
                    axis.semilogx(
                        decay[shown],
                        value[shown],
                        "o",
                        markersize=4.5,
                        color=COLOURS[1],
                        markerfacecolor=face,
                        label=name,
                    )
            axis.set_xlabel(r"weight decay $\lambda$")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=min(0.0, float(value.min())))
        if found.problem.noisy:
            axes[0].legend(loc="upper right")
    return figure


def draw_fitted(found: ToyBoundaries, index: int) -> Figure:
    weight, bias = found.weight[index], float(found.bias[index])
    mirrored = mirror_image(SHOWN, weight, bias)[0]
    title = (
        rf"$\lambda = 10^{{{found.decay[index].log10():.1f}}}$: $\theta$ = {found.angle[index].rad2deg():.0f}°, "
        rf"$d_{{adv}}$ = {found.distance[index]:.2f}"
    )
    normal = weight / weight.norm()
    return _with_mirror(normal, bias / float(weight.norm()), SHOWN[0], mirrored, title, found.problem)


def _with_mirror(
    normal: Tensor, offset: float, image: Tensor, mirrored: Tensor, title: str, problem: ToyProblem | None
) -> Figure:
    """Image space with the boundary normal·x + offset = 0, and x and x_m as images beside it."""
    with styled():
        figure, plane, images = _layout(1, 2)
        _plane(plane)
        plane.set_title(title, loc="left")
        _boundary(plane, normal, offset)
        if problem is None:
            for side, name, colour in zip((-1, 1), CLASSES, COLOURS, strict=False):
                line = [0.2 * side, float(side)], [0, 0]
                plane.plot(*line, color=colour, linewidth=5, solid_capstyle="round", label=name)
        else:
            _points(plane, problem)
        plane.plot(*zip(image.tolist(), mirrored.tolist(), strict=True), "k--", linewidth=0.8)
        for point, name in ((image, "$x$"), (mirrored, "$x_m$")):
            plane.plot(*point.tolist(), "ko", markersize=5)
            plane.annotate(name, _place(point), xytext=(5, 6), textcoords="offset points")
        plane.legend(loc="lower left")
        for axis, point, name in zip(images, (image, mirrored), ("$x$", "$x_m$"), strict=True):
            _show(axis, point, name)
    return figure


def _layout(rows: int, columns: int) -> tuple[Figure, Axes, list[Axes]]:
    """A square for image space, and rows × columns of images beside it."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.add_gridspec(1, 2, width_ratios=(3.3, 3.9))
    plane = figure.add_subplot(parts[0])
    cells = parts[1].subgridspec(rows, columns)
    return figure, plane, [figure.add_subplot(cells[row, column]) for row in range(rows) for column in range(columns)]


def _plane(axis: Axes) -> None:
    axis.set_xlim(-1.1, 1.1)
    axis.set_ylim(-1.1, 1.1)
    axis.set_aspect("equal")
    axis.set_xticks([-1, 0, 1])
    axis.set_yticks([-1, 0, 1])
    axis.set_xlabel("$a$ (inner square)")
    axis.set_ylabel("$b$ (ground)")


def _boundary(axis: Axes, normal: Tensor, offset: float) -> None:
    """The line, with the half-planes of both classes shaded."""
    grid = torch.linspace(-1.1, 1.1, 201, dtype=torch.float64)
    score = (normal[0] * grid.unsqueeze(0) + normal[1] * grid.unsqueeze(1) + offset).numpy()
    place = grid.numpy(), grid.numpy()
    axis.contourf(*place, score, levels=[-10, 0, 10], colors=SIDES, zorder=0)
    axis.contour(*place, score, levels=[0], colors=[COLOURS[-1]], linewidths=1.4)


def _points(axis: Axes, problem: ToyProblem) -> None:
    for label, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=False)):
        points = problem.inputs[problem.labels == label].numpy()
        axis.plot(points[:, 0], points[:, 1], "o", color=colour, markersize=3.5, label=name)
    if problem.noisy:
        p = problem.inputs[-1]
        axis.plot(*p.tolist(), "o", color=COLOURS[0], markersize=9, fillstyle="none")
        axis.annotate("$p$", _place(p), xytext=(6, -10), textcoords="offset points")


def _place(point: Tensor) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _show(axis: Axes, point: Tensor, caption: str) -> None:
    """One image: the inner third of an edge has the brightness a, the ground b."""
    from pyrobust.analysis.toy import toy_images

    axis.imshow(toy_images(point.unsqueeze(0))[0, 0].numpy(), cmap="gray", vmin=-1, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)
    axis.spines[:].set_visible(True)
    axis.set_xlabel(caption, labelpad=3, fontsize=7)

"""The toy problem: two classes on one line of a two-dimensional image space, and what tilts the boundary between them.

An image x = (a, b) ∈ [−1, 1]² is an inner square of brightness a on a ground of brightness b. Class I is a ∈ [−1, −0.2], class J
a ∈ [0.2, 1], both with b = 0; a noisy point p lies on the side of J with the label of I.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import check_inputs
from pyrobust.attacks._common import check_count, check_positive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISY = (0.4, -0.15)


@dataclass(frozen=True)
class ToyProblem:
    """A training set, in float64.

    Attributes:
        inputs: (N, 2), the images (a, b); p, where there is one, is the last.
        labels: int64 (N,), 0 for I and 1 for J.
        noisy: there is a p.
    """

    inputs: Tensor
    labels: Tensor
    noisy: bool

    def plot(self) -> Figure:
        """The points in image space, and images of both classes."""
        from pyrobust.analysis._draw_toy import draw_problem

        return draw_problem(self)


@dataclass(frozen=True)
class TiltedBoundaries:
    """An image x and its mirror image through L_θ, for every θ, in float64.

    Attributes:
        angle: (T,), θ in radians.
        image: (2,), x.
        projected, mirrored: (T, 2), x_p and x_m.
        distance: (T,), ‖x − x_m‖₂.
    """

    angle: Tensor
    image: Tensor
    projected: Tensor
    mirrored: Tensor
    distance: Tensor

    def plot(self) -> Figure:
        """The distance over θ."""
        from pyrobust.analysis._draw_toy import draw_distance

        return draw_distance(self)

    def plot_boundary(self, index: int) -> Figure:
        """L_θ of one θ in image space, with x and x_m there and as images."""
        from pyrobust.analysis._draw_toy import draw_tilted

        return draw_tilted(self, index)


def toy_problem(images: int = 20, *, gap: float = 0.2, noisy: tuple[float, float] | None = NOISY) -> ToyProblem:
    """I: (−a, 0) and J: (a, 0) for ``images`` values a evenly spaced over [gap, 1], and p.

    Args:
        images: of each class, >= 2.
        gap: in (0, 1): half the distance between the classes.
        noisy: p, labelled I, inside [−1, 1]²; None: no such point.

    Raises:
        ValueError: naming the argument.

    Source: seed 001, "A Toy Problem", "Setup"; ranges and images are those of its published page. It does not tell where p
        lies.
    """
    check_count(images=images)
    if images < 2:
        raise ValueError(f"images: expected at least 2, got {images}")
    check_positive(below=1, gap=gap)
    side = torch.linspace(gap, 1, images, dtype=torch.float64)
    points = torch.cat([-side.flip(0), side])
    inputs = torch.stack([points, torch.zeros_like(points)], dim=1)
    labels = (points > 0).long()
    if noisy is not None:
        p = torch.tensor(noisy, dtype=torch.float64)
        if p.shape != (2,) or not bool((p.abs() <= 1).all()):
            raise ValueError(f"noisy: expected a point of [-1, 1]², got {noisy!r}")
        inputs, labels = torch.cat([inputs, p.unsqueeze(0)]), torch.cat([labels, labels.new_zeros(1)])
    return ToyProblem(inputs, labels, noisy is not None)


def toy_images(points: Tensor, size: int = 9) -> Tensor:
    """Points (a, b), (N, 2), as images (N, 1, size, size): the inner third of the rows and columns is a, the ground is b."""
    check_inputs(points, (-math.inf, math.inf))
    check_count(size=size)
    images = points[:, 1].reshape(-1, 1, 1, 1).repeat(1, 1, size, size)
    inner = slice(size // 3, size - size // 3)
    images[:, :, inner, inner] = points[:, 0].reshape(-1, 1, 1, 1)
    return images


def tilted_boundaries(angles: Tensor | None = None, *, image: tuple[float, float] = (-0.8, 0.0)) -> TiltedBoundaries:
    """x_m = x − 2 (x·w_θ) w_θ through L_θ: x·w_θ = 0, w_θ = (cos θ, sin θ); ‖x − x_m‖ = 2 |a cos θ + b sin θ|.

    Of an image of either class (b = 0) that is 2 |a| cos θ: all of 2 |a| at θ = 0, where x_m is an image of the other class, and
    nothing at θ = π/2, where x_m looks like x.

    Args:
        angles: (T,), θ in radians; default 0° to 89° by degrees.
        image: x = (a, b), finite.

    Returns:
        TiltedBoundaries.

    Raises:
        ValueError: naming the argument.

    Source: seed 001, "Projected and mirror images" and "A mirror image as a function of θ".
    """
    theta = torch.arange(90, dtype=torch.float64).deg2rad() if angles is None else angles.detach().double()
    if theta.ndim != 1 or not len(theta) or not bool(theta.isfinite().all()):
        raise ValueError(f"angles: expected finite values of shape (T,), T >= 1, got shape {tuple(theta.shape)}")
    x = torch.tensor(image, dtype=torch.float64)
    if x.shape != (2,) or not bool(x.isfinite().all()):
        raise ValueError(f"image: expected finite (a, b), got {image!r}")
    x = x.to(theta.device)
    normal = torch.stack([theta.cos(), theta.sin()], dim=1)
    across = (normal @ x).unsqueeze(1) * normal
    return TiltedBoundaries(theta, x, x - across, x - 2 * across, 2 * (normal @ x).abs())

"""The angle between a linear classifier and the nearest-centroid classifier, and the plane in which it is seen.

Labels are 0 (class I of the seed) and 1 (class J). All is computed and returned in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pyrobust._checks import check_inputs, check_labels
from pyrobust.analysis.geometry import ANYWHERE, signed_distance, weight_norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARALLEL = 1e-7  # sines of angles below it are what solvers of linear classifiers leave of 0


class Linear(NamedTuple):
    """s(x) = w·x + b: w (D,) and b (), in float64."""

    weight: Tensor
    bias: Tensor


def nearest_centroid(inputs: Tensor, labels: Tensor) -> Linear:
    """w = j − i, b = −w·(i + j)/2, with i and j the means of classes 0 and 1: the class of the nearer mean.

    Raises:
        TypeError, ValueError: naming the argument; a class is missing, or the means are equal.

    Source: seed 001, "Adversarial Distance and Tilting Angle" (which scales w to norm 1).
    """
    low, high = _centroids(inputs, labels)
    weight = high - low
    return Linear(weight, -weight.dot(low + high) / 2)


def tilting_angle(inputs: Tensor, labels: Tensor, weight: Tensor) -> float:
    """θ, in radians in [0, π], between w and the weights j − i of the nearest-centroid classifier.

    Arguments and errors as of :func:`tilting_plane`. Source: seed 001, "Adversarial Distance and Tilting Angle".
    """
    z = nearest_centroid(inputs, labels).weight
    return float(angles_between(_unit(weight, z), z))


def angles_between(weights: Tensor, direction: Tensor) -> Tensor:
    """The angles of (…, D) with (D,), none of them zero: (…), in radians in [0, π].

    By Kahan's formula 2 atan(‖û − v̂‖ / ‖û + v̂‖): the arc cosine loses half the digits near 0.
    """
    u, v = weights / weights.norm(dim=-1, keepdim=True), direction / direction.norm()
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1))


@dataclass(frozen=True)
class TiltingPlane:
    """A set of samples in the tilting plane of a classifier; distances in it are distances between inputs.

    Attributes:
        axes: ẑ and n̂, (2, D): orthonormal, and w lies in their plane.
        points: (N, 2): coordinates of the samples, (x·ẑ, x·n̂).
        labels: (N,), 0 or 1.
        centroids: (2, 2): of class 0 and of class 1; they differ in the first coordinate alone.
        normal: (2,): ŵ in the plane, (cos θ, sin θ).
        offset: b / ‖w‖: the boundary is normal · p + offset = 0.
    """

    axes: Tensor
    points: Tensor
    labels: Tensor
    centroids: Tensor
    normal: Tensor
    offset: float

    def project(self, inputs: Tensor) -> Tensor:
        """(N, …) → (N, 2): the coordinates of other inputs."""
        return inputs.detach().to(self.axes).flatten(1) @ self.axes.T

    def plot(self) -> Figure:
        """The samples, the centroids and the boundary, in one scale."""
        from pyrobust.analysis._draw_geometry import draw_plane

        return draw_plane(self)


def tilting_plane(inputs: Tensor, labels: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> TiltingPlane:
    """ẑ = (j − i)/‖j − i‖ and n̂ ∝ w − (w·ẑ) ẑ (Gram–Schmidt), the samples, and the boundary in their plane.

    Where w is parallel to ẑ there is no tilting plane: n̂ is then, of all directions orthogonal to ẑ, that in which the samples
    vary most.

    Args:
        inputs: (N, …) with D ≥ 2 values each.
        labels: int64 (N,), 0 or 1, both present.
        weight: w, as many values as an input, not zero.
        bias: b, a number or a tensor of one.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a few products with the samples; without a tilt the eigenvectors of a D × D matrix.
    Source: seed 001, "Example: SVM on MNIST" and note 7.
    """
    low, high = _centroids(inputs, labels)
    x = inputs.detach().double().flatten(1)
    if len(low) < 2:
        raise ValueError(f"inputs: expected at least 2 values a sample, got {len(low)}")
    distance = signed_distance(inputs, weight, bias)
    z = (high - low) / (high - low).norm()
    w = _unit(weight, z)
    n = w - w.dot(z) * z
    if n.norm() <= PARALLEL:
        rest = x - x.mean(0)
        rest -= (rest @ z).unsqueeze(1) * z
        spread = rest.T @ rest
        spread -= (1 + spread.trace()) * torch.outer(z, z)  # z comes last, even where nothing varies
        n = torch.linalg.eigh(spread).eigenvectors[:, -1]
    n = n - n.dot(z) * z  # the second time for the digits that the first, of nearly parallel vectors, cancelled
    n = n / n.norm()
    axes = torch.stack([z, n])
    offset = float(distance[0] - x[0].dot(w))
    return TiltingPlane(axes, x @ axes.T, labels, torch.stack([low, high]) @ axes.T, axes @ w, offset)


def _centroids(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    check_inputs(inputs, ANYWHERE)
    check_labels(labels, inputs, 2)
    if int(labels.sum()) in (0, len(labels)):
        raise ValueError("labels: expected both 0 and 1, got one of them")
    x = inputs.detach().double().flatten(1)
    low, high = x[labels == 0].mean(0), x[labels == 1].mean(0)
    if torch.equal(low, high):
        raise ValueError("inputs: expected classes whose means differ")
    return low, high


def _unit(weight: Tensor, like: Tensor) -> Tensor:
    norm = weight_norm(weight).to(like)
    if weight.numel() != like.numel():
        raise ValueError(f"weight: expected {like.numel()} values, got shape {tuple(weight.shape)}")
    return weight.detach().to(like).flatten() / norm

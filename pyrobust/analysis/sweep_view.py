"""One pair of classes along a sweep of λ: its samples, and each classifier's distances, tilting plane and mirror images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust.analysis.geometry import margin_distances
from pyrobust.analysis.linear import mirror_image
from pyrobust.analysis.tilting import TiltingPlane, tilting_plane

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SweepView:
    """Samples of two classes, and classifiers of them.

    Attributes:
        loss: "hinge" or "softplus".
        inputs: (N, …).
        labels: int64 (N,), 0 or 1.
        lambdas: (L,), increasing.
        weight, bias: (L, D) and (L,).
    """

    loss: str
    inputs: Tensor
    labels: Tensor
    lambdas: Tensor
    weight: Tensor
    bias: Tensor

    @cached_property
    def distances(self) -> Tensor:
        """y d(x), (L, N)."""
        classifiers = zip(self.weight, self.bias, strict=True)
        return torch.stack([margin_distances(self.inputs, self.labels, w, b) for w, b in classifiers])

    @cached_property
    def planes(self) -> list[TiltingPlane]:
        """The tilting plane of each classifier."""
        return [tilting_plane(self.inputs, self.labels, w, b) for w, b in zip(self.weight, self.bias, strict=True)]

    @cached_property
    def representatives(self) -> Tensor:
        """(2, …): of each class the sample that is nearest to the class's mean."""
        picked = []
        for label in (0, 1):
            samples = self.inputs[self.labels == label]
            rows = samples.double().flatten(1)
            picked.append(samples[(rows - rows.mean(0)).norm(dim=1).argmin()])
        return torch.stack(picked)

    def mirrors(self, index: int) -> Tensor:
        """(2, …): the mirror images of the representatives for λ number ``index``, in float64."""
        return mirror_image(self.representatives, self.weight[index], self.bias[index])

    @cached_property
    def tracks(self) -> Tensor:
        """(L, 2, 2, 2): for each λ and representative, where it and its mirror image are in the tilting plane."""
        both = [torch.stack([self.representatives.double(), self.mirrors(k)], 1) for k in range(len(self.lambdas))]
        planes = zip(self.planes, both, strict=True)
        return torch.stack([plane.project(pair.flatten(0, 1)).unflatten(0, (2, 2)) for plane, pair in planes])

    def plot_distances(self, indices: Sequence[int]) -> Figure:
        """Histograms of y d(x), the scaled loss over them: a panel a λ."""
        from pyrobust.analysis._draw_sweep_view import draw_distances

        return draw_distances(self, indices)

    def plot_planes(self, indices: Sequence[int]) -> Figure:
        """Tilting planes with samples, means, boundary, and the representatives' mirror images: a panel a λ."""
        from pyrobust.analysis._draw_sweep_view import draw_planes

        return draw_planes(self, indices)

    def plot_mirrors(self, indices: Sequence[int]) -> Figure:
        """The representatives and their mirror images, with the distance between them: a column a λ.

        Raises:
            ValueError: the inputs are no images (N, C, H, W) of 1 or 3 channels.
        """
        from pyrobust.analysis._draw_sweep_view import draw_mirrors

        return draw_mirrors(self, indices)

    def plot_frame(self, index: int) -> Figure:
        """Histogram, tilting plane and, of images, mirror images for one λ; the axes are the same for every λ."""
        from pyrobust.analysis._draw_sweep_view import draw_frame

        return draw_frame(self, index)

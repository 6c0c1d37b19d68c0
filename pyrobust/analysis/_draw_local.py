"""Figures of local linear classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, NORM_LABELS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.local import LocalClassifier


def draw_local(one: LocalClassifier, found: Tensor | None) -> Figure:
    distances = one.distances.double().numpy()
    label = rf"{NORM_LABELS[one.norm]} distance $d(x)$ to the boundary of the local classifier"
    with styled():
        figure, (axis,) = panels([""], height=2.9 if found is None else 3.6)
        axis.set_xlabel(label)
        if found is None:
            axis.hist(distances[np.isfinite(distances)], bins=30, color="#9ecae1", edgecolor="#3b78a8", linewidth=0.5)
            axis.set_ylabel("samples")
            return figure
        reached = found.double().cpu().numpy()
        shown = np.isfinite(distances) & np.isfinite(reached) & (distances > 0)
        axis.scatter(distances[shown], reached[shown], s=9, color=COLOURS[0], alpha=0.6, linewidths=0)
        top = 1.05 * max(float(np.max(values[shown], initial=0)) for values in (distances, reached)) or 1.0
        axis.plot([0, top], [0, top], color="#555555", linewidth=0.9, linestyle="--", label="equal")
        axis.set_xlim(0, top)
        axis.set_ylim(0, top)
        axis.set_ylabel(rf"{NORM_LABELS[one.norm]} norm of the smallest perturbation found")
        axis.legend(loc="upper left")
        return figure

"""The figure of fooling curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from pyrobust.evaluation.plots import COLOURS, LINES, eps_label, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.fooling import FoolingCurve


def draw_curves(curves: Mapping[str, FoolingCurve]) -> Figure:
    with styled():
        figure, axes = panels(["", ""])
        for number, (name, curve) in enumerate(curves.items()):
            turn, place = divmod(number, len(COLOURS))
            for axis, values in zip(axes, (100 * curve.success, curve.margin), strict=True):
                axis.plot(
                    curve.eps, values, LINES[turn % len(LINES)], color=COLOURS[place], marker="o", markersize=2.5, linewidth=1.2,
                    label=name,
                )  # fmt: skip
        for axis, label, top in zip(
            axes, ("noise turned into the class (%)", "margin of probability"), (102, 1.02), strict=True
        ):
            axis.set_xlabel(eps_label("linf"))
            axis.set_ylabel(label)
            axis.set_xlim(left=0)
            axis.set_ylim(0, top)
        if any(curves):
            axes[0].legend(loc="best")
        return figure

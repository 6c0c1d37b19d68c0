"""Measures of linear classifiers over λ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.sweep import Sweep


def draw_sweep(sweep: Sweep) -> Figure:
    with styled():
        figure, (errors, distance, angle, norm) = panels([""] * 4, height=2.2)
        _lines(errors, sweep, 100 * sweep.train_error, COLOURS[0], "training")
        _lines(errors, sweep, 100 * sweep.test_error, COLOURS[1], "test")
        errors.set_ylabel("error (%)")
        errors.set_ylim(0)
        errors.legend()
        _lines(distance, sweep, sweep.adversarial_distance, COLOURS[2], None)
        _coloured(distance, r"$d_{adv}$ ($\ell_2$, of inputs)", COLOURS[2])
        error = distance.twinx()
        _lines(error, sweep, sweep.error_distance, COLOURS[3], None, "--")
        _coloured(error, r"$d_{err}$ (dashed)", COLOURS[3])
        error.spines["right"].set_visible(True)
        error.grid(False)
        _lines(angle, sweep, sweep.angle.rad2deg(), COLOURS[0], None)
        angle.set_ylabel(r"tilting angle $\theta$ (degrees)")
        angle.set_ylim(0, 90)
        _lines(norm, sweep, sweep.norm, COLOURS[0], None)
        norm.set_ylabel(r"$\|w\|$")
        norm.set_yscale("log")
        low, high = sweep.norm.aminmax()
        norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if float(high / low) < 200 else (1,)))
        norm.yaxis.set_major_formatter("{x:g}")
        norm.yaxis.set_minor_formatter(NullFormatter())
        for axis in (errors, distance, angle, norm):
            axis.set_xscale("log")
            axis.set_xlabel(r"$\lambda$")
    return figure


def _lines(axis: Axes, sweep: Sweep, values: Tensor, colour: str, label: str | None, style: str = "-") -> None:
    if len(values) > 1:
        axis.plot(sweep.lambdas.numpy(), values.T.numpy(), style, color=colour, linewidth=0.5, alpha=0.35)
    axis.plot(sweep.lambdas.numpy(), values.mean(0).numpy(), style, color=colour, linewidth=1.8, label=label)


def _coloured(axis: Axes, label: str, colour: str) -> None:
    axis.set_ylabel(label, color=colour)
    axis.tick_params(axis="y", colors=colour)
    axis.set_ylim(0)

"""Figures of Jacobian spectra, operator norms, alignments and Lipschitz bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from torch import Tensor

from pyrobust.evaluation.plots import COLOURS, INSIDE, LINES, NORM_LABELS, panels, styled

if TYPE_CHECKING:
    from pyrobust.analysis.alignment import Alignment
    from pyrobust.analysis.layer_norms import LipschitzUpper
    from pyrobust.analysis.lipschitz import LipschitzLower
    from pyrobust.analysis.operator_norms import OperatorNorms
    from pyrobust.analysis.spectrum import JacobianSpectrum

_MARKED = 30  # ranks up to which each has a marker
_DEEP = 1e-7  # of the largest value: what is below is rounding, and not shown


def draw_spectra(results: Mapping[str, JacobianSpectrum]) -> Figure:
    """A line a network: the median by rank, the middle half shaded, and for a single one the middle nine tenths too."""
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        highest = max(float(result.values.max()) for result in results.values())
        lowest = highest
        for number, (name, result) in enumerate(results.items()):
            shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
            least, low, middle, high, most = result.values.quantile(shares, dim=0)
            ranks, colour, stroke, marker = _style(number, len(middle))
            label = name or "median"
            axis.plot(ranks, middle, stroke, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)
            half = "middle half" if len(results) == 1 else None
            axis.fill_between(ranks, low, high, color=colour, alpha=0.28, linewidth=0, label=half)
            if len(results) == 1:
                axis.fill_between(ranks, least, most, color=colour, alpha=0.12, linewidth=0, label="middle nine tenths")
            shown = (least if len(results) == 1 else low)[middle > _DEEP * highest]
            lowest = min([lowest, *shown[shown > _DEEP * highest].tolist()])
        axis.set_yscale("log")
        axis.set_ylim(0.8 * lowest, 1.25 * highest)
        axis.set_ylabel("singular value of the Jacobian")
        _finish(axis, len(results), len(ranks))
        return figure


def draw_alignments(results: Mapping[str, Alignment]) -> Figure:
    """A line each: mean |cos| by rank, two standard errors shaded; dashed: directions uniform on the sphere."""
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        highest = 0.0
        for number, (name, result) in enumerate(results.items()):
            there = result.cosines[~result.cosines.isnan().any(1)]
            mean, error = there.mean(0), 2 * there.std(0, correction=0) / len(there) ** 0.5
            highest = max(highest, float((mean + error).max()))
            ranks, colour, stroke, marker = _style(number, len(mean))
            label = name or "mean"
            axis.plot(ranks, mean, stroke, color=colour, marker=marker, markersize=3, linewidth=1.3, label=label)
            axis.fill_between(ranks, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        expected = next(iter(results.values())).expected_cosine
        axis.axhline(expected, color="#555555", linewidth=0.9, linestyle="--", label="random directions")
        axis.set_ylim(0, min(1.02, 1.1 * highest))
        axis.set_ylabel("|cos| with the singular vector")
        _finish(axis, len(results) + 1, len(ranks))
        return figure


def draw_norms(one: OperatorNorms) -> Figure:
    """Medians on a logarithmic axis, a row a pair, the middle nine tenths as bars; hollow: lower bounds."""
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        shares = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
        for row, (pair, values) in enumerate(one.values.items()):
            low, middle, high = values.quantile(shares).tolist()
            colour = COLOURS[row // 3]
            axis.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.35, solid_capstyle="butt")
            face = colour if one.exact[pair] else "white"
            axis.plot([middle], [row], "o", color=colour, markerfacecolor=face, markersize=5)
        for face, label in (("#444444", "median"), ("white", "median of lower bounds")):
            if face != "white" or not all(one.exact.values()):
                axis.plot([], [], "o", color="#444444", markerfacecolor=face, markersize=5, label=label)
        axis.plot([], [], color="#444444", linewidth=3, alpha=0.35, label="middle nine tenths")
        axis.set_yticks(range(len(one.values)), [f"{NORM_LABELS[p]} → {NORM_LABELS[q]}" for p, q in one.values])
        axis.invert_yaxis()
        _logarithmic(axis, torch.cat(list(one.values.values())), 0.7, 1.4)
        axis.set_xlabel("operator norm of the Jacobian")
        figure.legend(loc="outside lower left", ncols=2)
        return figure


def draw_lipschitz(lower: LipschitzLower, bound: float | None = None) -> Figure:
    """Shares of samples below a value, on a logarithmic axis, and the bound that holds everywhere."""
    with styled():
        figure, (axis,) = panels([""], height=2.7)
        near = rf"largest found, $\|z\|_2 \leq$ {lower.eps:.3g}"
        for colour, values, label in ((COLOURS[0], lower.at_inputs, "at the inputs"), (COLOURS[1], lower.near, near)):
            axis.step(values.sort().values, _shares(values), where="post", color=colour, linewidth=1.3, label=label)
        if bound is not None:
            axis.axvline(bound, color="#222222", linewidth=1, linestyle="--", label=f"bound everywhere: {bound:.3g}")
        most = torch.tensor([] if bound is None else [bound])
        _logarithmic(axis, torch.cat([lower.at_inputs, lower.near, most]), 0.8, 1.25)
        axis.set_ylim(0, 102)
        axis.set_xlabel(r"largest singular value of the Jacobian, $\ell_2 \to \ell_2$")
        axis.set_ylabel("samples with less (%)")
        figure.legend(loc="outside lower left", ncols=2)
        return figure


def draw_layers(one: LipschitzUpper) -> Figure:
    """The constant of each layer that has another than 1, in order; the product is the bound."""
    shown = [layer for layer in one.layers if layer.bound != 1] or one.layers[:1]
    with styled():
        figure, (axis,) = panels([f"product over the layers: {one.bound:.4g}"], height=0.7 + 0.28 * len(shown))
        rows = range(len(shown), 0, -1)
        axis.plot([layer.bound for layer in shown], rows, "o", color=COLOURS[0], markersize=5)
        axis.set_yticks(rows, [f"{layer.name}, {layer.kind}".lstrip(", ") for layer in shown])
        axis.set_ylim(0.4, len(shown) + 0.6)
        _logarithmic(axis, torch.tensor([layer.bound for layer in shown]), 0.8, 1.25)
        axis.set_xlabel(r"Lipschitz constant, $\ell_2 \to \ell_2$")
        return figure


def _logarithmic(axis: Axes, values: Tensor, below: float, above: float) -> None:
    """An x axis with plain numbers, from below times the least to above times the largest of the values, zeros and infinities
    apart."""
    shown = values[(values > 0) & values.isfinite()].tolist() or [1.0]
    low, high = below * min(shown), above * max(shown)
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _shares(values: Tensor) -> Tensor:
    return 100 * torch.arange(1, len(values) + 1) / len(values)


def _style(number: int, count: int) -> tuple[range, str, str, str | None]:
    turn, place = divmod(number, len(COLOURS))
    return range(1, count + 1), COLOURS[place], LINES[turn % len(LINES)], "o" if count <= _MARKED else None


def _finish(axis: Axes, lines: int, ranks: int) -> None:
    axis.set_xlabel("rank")
    axis.set_xlim(1 - 0.04 * ranks, ranks + 0.04 * ranks)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if lines > INSIDE:
        axis.figure.legend(loc="outside lower left", ncols=2)  # type: ignore[call-arg]
    else:
        axis.legend(loc="best")

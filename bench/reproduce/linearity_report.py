"""Figures 2, 4, 5 and 7 and theorem 1 of seed 004 as Markdown and as pictures."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from bench.reproduce._common import Run, claims, table
from bench.reproduce._figures import DPI
from bench.reproduce.linearity_claims import Found, orderings
from bench.reproduce.linearity_theorem import NAMES
from bench.reproduce.spectral_regularisation import MULTIPLES
from pyrobust.analysis._draw_activations import draw_cells, draw_shared
from pyrobust.analysis._draw_linearity import draw_linearity
from pyrobust.analysis._draw_spectrum import draw_alignments, draw_spectra
from pyrobust.analysis.spectrum import JacobianSpectrum
from pyrobust.evaluation.plots import COLOURS, panels, png, styled


def markdown(setting: str, figures: Mapping[str, str], found: Found) -> str:
    """The whole document; ``figures`` are names of files."""
    picture = {key: f"![{key}]({name})" for key, name in figures.items()}
    return f"""# Spectra, local linearity and activation patterns: seed 004, figures 2, 4, 5 and 7 and theorem 1

The paper gives curves and no numbers, so it is its statements that stand beside ours.

{setting}
## Figure 2: singular values, and alignment of adversarial perturbations with singular vectors

{picture["2 left"]}

{picture["2 right"]}

## Figure 4: deviation from linearity, and largest singular value over distance

{picture["4"]}

## Figure 5: activations in common, and cell sizes

{picture["5"]}

{picture["cells"]}

{_numbers(found)}
Medians over images at ε*; activations in common are means, in %; cells are the median distance to the first change of a unit.

## Figure 7: from adversarial training to d.d. SNR

{picture["7"]}

{_mixes(found)}
## Theorem 1

The standard network in float64, 10 steps of both from the same start, in balls of a tenth of the way to the nearest edge of
the cell that any iterate meets. Apart: the largest ‖(xₖ − x)/ε − vₖ‖₂ / ‖vₖ‖₂ over images and steps.
Gain: ‖f(xₖ) − f(x)‖ / ε at the last step, the median over images.

{_theorem(found)}
Beyond the cell (p = q = 2): the median cosine of the last xₖ − x and the singular vector vₖ, by radius.

{_beyond(found)}
## What the paper states

{claims(orderings(found))}"""


def _numbers(found: Found) -> str:
    at = found.at_star
    head = ["network", "σ₁ at x", "deviation, adv.", "of the change", "σ₁ at x + z", "shared, data", "adv.", "noise"]
    head += ["cell, data", "adv.", "noise"]
    rows = []
    for name, one in found.methods.items():
        linear = one.linearity
        rows.append(
            [
                name,
                f"{found.largest(name).median():.3g}",
                f"{found.deviation(name).median():.3g}",
                f"{100 * linear.relative('adversarial')[at].nanmedian():.0f} %",
                f"{linear.largest_singular['adversarial'][at].median():.3g}",
                *(f"{100 * one.near.shared[key][at].mean():.1f}" for key in ("random", "adversarial")),
                f"{100 * one.off.shared['random'][at].mean():.1f}",
                *(f"{one.near_cells.sizes[key].median():.2g}" for key in ("random", "adversarial")),
                f"{one.off_cells.sizes['random'].median():.2g}",
            ]
        )
    return table(head, rows)


def _mixes(found: Found) -> str:
    rows = [
        [
            name,
            f"{100 * one.right[0].mean():.1f}",
            f"{100 * one.right[1 + MULTIPLES.index(1.0)].mean():.1f}",
            f"{one.deviation.median():.3g}",
            f"{one.sigma.median():.3g}",
        ]
        for name, one in found.mixes.items()
    ]
    return table(["network", "clean", "at ε*", "deviation at ε*", "σ₁"], rows)


def _theorem(found: Found) -> str:
    ratios = sorted({ratio for _, _, ratio in found.theorem})
    head = ["p, q", "ε (median)", "inside", *(f"apart, α = {ratio:.0e} ε" for ratio in ratios), "gain / ‖J v‖ − 1"]
    rows = []
    for p, q in dict.fromkeys((p, q) for p, q, _ in found.theorem):
        one = [found.theorem[p, q, ratio] for ratio in ratios]
        rows.append(
            [
                f"{NAMES[p]}, {NAMES[q]}",
                f"{one[-1].eps.median():.1e}",
                f"{100 * one[-1].inside.double().mean():.0f} %",
                *(f"{each.gap.max():.1e}" for each in one),
                f"{float(one[-1].gain.median()) - 1:+.0e}",
            ]
        )
    return table(head, rows)


def _beyond(found: Found) -> str:
    rows = [[name, *(f"{one.cosine.median():.3f}" for one in row)] for name, row in found.beyond.items()]
    return table(["network", *(f"{radius:g} ε*" for radius in found.radii)], rows)


def draw(run: Run, found: Found) -> dict[str, str]:
    """All figures, as PNG files; their names."""
    spectra = {name: JacobianSpectrum(one.aligned.values) for name, one in found.methods.items()}
    aligned = {name: one.aligned for name, one in found.methods.items()} | {"random network": found.untrained}
    cells = {name: one.near_cells for name, one in found.methods.items()}
    linearity, near, off = (
        {name: getattr(one, key) for name, one in found.methods.items()} for key in ("linearity", "near", "off")
    )
    drawn = {
        "2 left": draw_spectra(spectra),
        "2 right": draw_alignments(aligned),
        "4": draw_linearity(linearity, found.star),
        "5": draw_shared(near, off, found.star),
        "cells": draw_cells(cells),
        "7": _draw_mixes(found),
    }
    (axis,) = drawn["2 right"].axes  # the first ranks are what it is about
    axis.set_xlim(1, found.untrained.cosines.shape[1])
    axis.set_xscale("log")
    names = {}
    for key, figure in drawn.items():
        path = run.path(f"{'figure-' if key != 'cells' else ''}{key.replace(' ', '-')}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with styled():
            path.write_bytes(png(figure, DPI))
        names[key] = path.name
    return names


def _draw_mixes(found: Found) -> Figure:
    with styled():
        figure, (axis,) = panels([""], height=2.9)
        eps = [0.0, *(multiple * found.star for multiple in MULTIPLES)]
        for colour, (name, one) in zip(COLOURS, found.mixes.items(), strict=False):
            axis.plot(eps, 100 * one.right.mean(1), color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
        axis.axvline(found.star, color="#555555", linewidth=0.9, linestyle=(0, (1, 1)))
        axis.set_xlim(0, eps[-1])
        axis.set_ylim(0, None)
        axis.set_xlabel("ε (l2 norm, of inputs in [0, 1])")
        axis.set_ylabel("accuracy under attack (%)")
        axis.legend(loc="upper right")
        return figure

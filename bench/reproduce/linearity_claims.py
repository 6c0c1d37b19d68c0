"""What was measured for figures 2, 4, 5 and 7 and theorem 1 of seed 004, and what the paper says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.reproduce._common import Claim
from bench.reproduce.linearity_theorem import NAMES, Agreement
from bench.reproduce.spectral_regularisation import MULTIPLES
from pyrobust.analysis import CellSizes, LocalLinearity, SharedActivations
from pyrobust.analysis.alignment import Alignment

TOP = 10  # ranks that count as dominant
REGULAR = ("adversarial", "d.d. SNR")


@dataclass(frozen=True)
class Network:
    """What was measured of one network: see the functions of `pyrobust.analysis`; ``near`` at the data, ``off`` at noise."""

    aligned: Alignment
    linearity: LocalLinearity
    near: SharedActivations
    off: SharedActivations
    near_cells: CellSizes
    off_cells: CellSizes


@dataclass(frozen=True)
class Mixed:
    """Of one mix: ``right`` as in `spectral_report.Measured`; at ε* along the adversarial direction (N,) deviations from
    linearity; and σ(J(x))."""

    right: NDArray[np.bool_]
    deviation: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Found:
    """All that was measured. ``shares`` and ``radii`` are in units of ε*; keys of ``theorem`` are (p, q, α / ε)."""

    star: float
    shares: Sequence[float]
    radii: Sequence[float]
    methods: Mapping[str, Network]
    untrained: Alignment
    mixes: Mapping[str, Mixed]
    theorem: Mapping[tuple[float, float, float], Agreement]
    beyond: Mapping[str, Sequence[Agreement]]

    @property
    def at_star(self) -> int:
        return list(self.shares).index(1.0)

    def largest(self, name: str) -> Tensor:
        return self.methods[name].aligned.values[:, 0]

    def deviation(self, name: str, direction: str = "adversarial") -> Tensor:
        return self.methods[name].linearity.deviation[direction][self.at_star]

    def plain(self) -> dict[str, Any]:
        """The numbers for JSON: means over images of curves, medians of single values."""
        return {
            "eps_star": self.star,
            "distances": [share * self.star for share in self.shares],
            "methods": {
                name: {
                    "largest_singular_value": float(one.aligned.values[:, 0].median()),
                    "mean_cosine_by_rank": one.aligned.cosines.mean(0).tolist()[:100],
                    "deviation": _medians(one.linearity.deviation),
                    "largest_singular_value_along": _medians(one.linearity.largest_singular),
                    "shared_at_data": {key: value.mean(1).tolist() for key, value in one.near.shared.items()},
                    "shared_at_noise": one.off.shared["random"].mean(1).tolist(),
                    "cells_at_data": {key: float(value.median()) for key, value in one.near_cells.sizes.items()},
                    "cells_at_noise": float(one.off_cells.sizes["random"].median()),
                }
                for name, one in self.methods.items()
            },
            "mixes": {
                name: {
                    "accuracy": one.right.mean(1).tolist(),
                    "deviation": float(one.deviation.median()),
                    "largest_singular_value": float(one.sigma.median()),
                }
                for name, one in self.mixes.items()
            },
            "theorem": [
                {"p": NAMES[p], "q": NAMES[q], "alpha_over_eps": ratio, **one.plain()}
                for (p, q, ratio), one in self.theorem.items()
            ],
            "beyond_the_cell": {name: [one.plain() for one in row] for name, row in self.beyond.items()},
        }


def _medians(values: Mapping[str, Tensor]) -> dict[str, list[float]]:
    return {name: rows.median(1).values.tolist() for name, rows in values.items()}


def orderings(found: Found) -> list[Claim]:
    """What §5 and theorem 1 say, with our numbers; where the paper gives no number for a word, the bound is ours."""
    return [
        *_spectra(found),
        *_alignments(found),
        *_linearity(found),
        *_patterns(found),
        _mixes(found),
        _theorem(found),
    ]


def difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean difference over the same images, and its standard error."""
    apart = (one - other).double()
    return float(apart.mean()), float(apart.std(correction=0)) / math.sqrt(len(apart))


def _more(text: str, one: Tensor, other: Tensor, unit: str = "") -> Claim:
    """``one`` is more than ``other``, by more than two standard errors of the mean difference."""
    apart, error = difference(one, other)
    return Claim(text, apart > 2 * error, f"{apart:+.3g} ± {error:.2g}{unit}")


def _spectra(found: Found) -> list[Claim]:
    standard = found.largest("standard")
    ratios = {name: float(found.largest(name).median() / standard.median()) for name in ("global SNR", *REGULAR)}
    ratio = ratios["global SNR"]
    return [
        *(
            _more(f"figure 2, left: {name} dampens σ₁; standard's is more by", standard, found.largest(name))
            for name in REGULAR
        ),
        Claim(
            "figure 2, left: global SNR has almost no effect: its median σ₁ is within a fifth of standard's",
            abs(ratio - 1) <= 0.2,
            f"{ratio:.2f} of it",
            "it damps, if less than the others, to "
            + ", ".join(f"{100 * value:.0f} % of standard's with {name}" for name, value in ratios.items()),
        ),
    ]


def _alignments(found: Found) -> list[Claim]:
    stated = []
    for name, one in found.methods.items():
        first, rest = _cosines(one.aligned)
        expected = one.aligned.expected_cosine
        stated.append(
            Claim(
                f"figure 2, right: adversarial perturbations of {name} are strongly aligned with the first {TOP} singular "
                "vectors: five times as much as random directions are, and more than with the others",
                first > 5 * expected and first > rest,
                f"mean |cos| {first:.3f}, with the others {rest:.3f}, at random {expected:.3f}",
            )
        )
    first, standard = _cosines(found.untrained)[0], _cosines(found.methods["standard"].aligned)[0]
    text = "figure 2, right: with those of a random network they are not: less than a third of standard's"
    return [*stated, Claim(text, first < standard / 3, f"mean |cos| {first:.3f}")]


def _cosines(aligned: Alignment) -> tuple[float, float]:
    """Mean |cos| over the first ranks, and over the others; 0 where there are none."""
    by_rank = aligned.cosines.nanmean(0)
    return float(by_rank[:TOP].mean()), float(by_rank[TOP:].mean()) if len(by_rank) > TOP else 0.0


def _linearity(found: Found) -> list[Claim]:
    standard = found.methods["standard"].linearity.largest_singular["adversarial"][found.at_star]
    return [
        *(
            _more(
                f"figure 4, left: {name} is more linear, at ε* in the adversarial direction; standard deviates more by",
                found.deviation("standard"),
                found.deviation(name),
            )
            for name in REGULAR
        ),
        *(
            _more(
                f"figure 4, right: {name} keeps σ(J(x + z)) low there; standard's is more by",
                standard,
                found.methods[name].linearity.largest_singular["adversarial"][found.at_star],
            )
            for name in REGULAR
        ),
    ]


def _patterns(found: Found) -> list[Claim]:
    at, standard = found.at_star, found.methods["standard"]
    stated = []
    for name in REGULAR:
        one = found.methods[name]
        stated += [
            _more(
                f"figure 5, left: {name} shares more activations than standard at the data, at ε* in {direction} directions",
                100 * one.near.shared[direction][at],
                100 * standard.near.shared[direction][at],
                " points",
            )
            for direction in ("random", "adversarial")
        ]
        near, off = (
            100 * difference(mine.shared["random"][at], theirs.shared["random"][at])[0]
            for mine, theirs in ((one.near, standard.near), (one.off, standard.off))
        )
        stated.append(
            Claim(
                f"figure 5, right: {name} has no effect at noise: less than a quarter of that at the data",
                abs(off) < abs(near) / 4,
                f"{off:+.2f} against {near:+.2f} points at ε*",
                _cells_grown(one, standard),
            )
        )
    return stated


def _cells_grown(one: Network, standard: Network) -> str:
    """What became of the cells, at the data and at noise."""
    grown = [
        float(mine.sizes["random"].median() / theirs.sizes["random"].median())
        for mine, theirs in ((one.near_cells, standard.near_cells), (one.off_cells, standard.off_cells))
    ]
    return (
        f"the median cell is {grown[0]:.1f} times as large as standard's at the data, and {grown[1]:.1f} times at noise"
    )


def _mixes(found: Found) -> Claim:
    row = 1 + MULTIPLES.index(1.0)
    right = {name: torch.from_numpy(one.right[row]).double() for name, one in found.mixes.items()}
    reference, *others = right
    apart = {name: difference(right[name], right[reference]) for name in others}
    return Claim(
        "figure 7: every mix is as accurate at ε* as adversarial training, within two standard errors",
        all(abs(mean) <= 2 * error for mean, error in apart.values()),
        "; ".join(f"{name}: {100 * mean:+.1f} ± {100 * error:.1f} points" for name, (mean, error) in apart.items()),
    )


def _theorem(found: Found) -> Claim:
    largest = max(ratio for _, _, ratio in found.theorem)
    gaps = [float(one.gap.max()) for (_, _, ratio), one in found.theorem.items() if ratio == largest]
    return Claim(
        "theorem 1: inside a cell and for α → ∞ the iterates of both are the same, for all p and q: apart by at most 4 ε/α",
        all(bool(one.inside.all()) and float(one.gap.max()) <= 4 / r for (_, _, r), one in found.theorem.items()),
        f"at most {max(gaps):.1e} at α = {largest:.0e} ε",
    )

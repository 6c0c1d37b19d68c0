"""The same network trained from several seeds: its measures, their means, and orderings between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from torch import nn

from bench.reproduce._common import Claim
from pyrobust.training import DivergedError

Measures = dict[str, float]
Runs = list[Measures]


def over_seeds(
    label: str, seeds: int, network: Callable[[int], nn.Module], measured: Callable[[nn.Module], Measures]
) -> Runs:
    """The measures of the network of each seed; a training that diverges is told and left out."""
    runs: Runs = []
    for seed in range(seeds):
        try:
            runs.append(measured(network(seed)))
        except DivergedError as error:
            print(f"  {label}, run {seed}: {error}", flush=True)
            continue
        shown = ", ".join(f"{key} {value:.4g}" for key, value in runs[-1].items())
        print(f"  {label}, run {seed}: {shown}", flush=True)
    return runs


def mean(runs: Iterable[Measures], key: str) -> float:
    values = [run[key] for run in runs]
    return float(np.mean(values)) if values else float("nan")


def spread(runs: Sequence[Measures], key: str) -> float:
    """The standard deviation over the runs; 0 of a single one."""
    return float(np.std([run[key] for run in runs], ddof=1)) if len(runs) > 1 else 0.0


def number(runs: Runs, key: str, digits: int, scale: float = 1.0) -> str:
    """The mean, with the standard deviation where there are several runs; – where nothing was measured."""
    value = scale * mean(runs, key)
    if np.isnan(value):
        return "–"
    deviation = f" ± {scale * spread(runs, key):.{digits}f}" if len(runs) > 1 else ""
    return f"{value:.{digits}f}{deviation}"


def relative(distances: np.ndarray, lengths: np.ndarray, counted: np.ndarray) -> float:
    """ρ: the mean of ‖r‖ / ‖x‖ over the images that count and for which an r was found; NaN where there is none."""
    ratios = (distances / lengths)[counted & np.isfinite(distances)]
    return float(ratios.mean()) if ratios.size else float("nan")


def below(
    text: str,
    key: str,
    rows: Mapping[str, Runs],
    lower: Sequence[str],
    higher: Sequence[str],
    digits: int = 3,
    why: str = "",
) -> Claim:
    """Whether every row of ``lower`` has a smaller mean than every row of ``higher``; ``why`` says where the order comes from if
    not."""
    low, high = ({name: mean(rows[name], key) for name in names} for names in (lower, higher))
    sides = [", ".join(f"{name} {value:.{digits}f}" for name, value in side.items()) for side in (low, high)]
    return Claim(text, max(low.values()) < min(high.values()), f"{sides[0]}; against {sides[1]}", why)

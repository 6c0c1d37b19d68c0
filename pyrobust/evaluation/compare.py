"""Compare finished runs on the same samples: overlaid curves, paired intervals, and crossings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pyrobust.evaluation import formatting, metrics
from pyrobust.evaluation.bootstrap import interval, resampled_means, supported_crossings
from pyrobust.evaluation.outcomes import Outcome, best_of, outcomes_of
from pyrobust.evaluation.store import RunError, read_manifest, read_results

GRID = 200
THRESHOLDS = 5
# Settings that change how hard the attacks tried, so that a difference between runs may not be the model's.
EFFORT = ("steps", "budget", "seed", "batch_size")


@dataclass(frozen=True)
class Run:
    """A finished run: its name, manifest and results."""

    name: str
    manifest: dict[str, Any]
    results: pa.Table

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return self.manifest["settings"]

    def best(self, norm: str, ids: metrics.Floats) -> Outcome:
        """The per-sample best of the run's attacks in ``norm``, over the samples ``ids`` alone."""
        outcome = best_of([o for o in outcomes_of(self.results, self.settings["tasks"]) if o.norm == norm])
        return Outcome(norm, outcome.attack, outcome.budgets, outcome.correct[ids], outcome.distances[ids])


@dataclass(frozen=True)
class NormComparison:
    """All runs in one norm. R runs, G values of eps; intervals are pairs (low, high).

    Attributes:
        norm: its name.
        eps: (G,).
        swept: whether accuracies were measured at these eps alone.
        accuracy: (R, G) robust accuracy.
        accuracy_interval: (R, G) each.
        difference: (R, G) accuracy minus that of the first run.
        difference_interval: (R, G) each, paired.
        rows: a measure, then for each run its value and (but for the first) the difference with its interval.
        crossings: sentences.
        figures: the table's values as plain data.
    """

    norm: str
    eps: metrics.Floats
    swept: bool
    accuracy: metrics.Floats
    accuracy_interval: tuple[metrics.Floats, metrics.Floats]
    difference: metrics.Floats
    difference_interval: tuple[metrics.Floats, metrics.Floats]
    rows: list[tuple[str, list[tuple[str, str]]]]
    crossings: list[str]
    figures: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: their names, the first being what differences refer to.
        samples: how many samples all runs share.
        confidence: of the intervals.
        resamples: of the bootstrap.
        norms: a comparison a norm.
        warnings: what makes the runs less comparable than they look.
    """

    runs: list[str]
    samples: int
    confidence: float
    resamples: int
    norms: list[NormComparison]
    warnings: list[str]

    def save(self, folder: str | Path) -> Path:
        """Write comparison.html, comparison.png and comparison.json; returns the path of the first."""
        from pyrobust.evaluation.compare_report import write_comparison

        return write_comparison(self, Path(folder))


def compare_runs(
    folders: Sequence[str | Path], *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare finished runs, paired by sample.

    Intervals are percentile bootstrap intervals over samples; every run sees the same resamples, so the interval of
    a difference is that of paired differences. Several attacks of a run in one norm count as their per-sample best.

    Args:
        folders: two or more run folders. The first is what differences refer to.
        resamples: B ≥ 100.
        confidence: in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two folders, or an argument out of its range.
        RunError: a folder holds no finished run, or the runs have no norm or no samples in common, or differ in
            labels, bounds or targets.
    """
    if len(folders) < 2 or len({Path(f).resolve() for f in folders}) < len(folders):
        raise ValueError("compare: expected two or more different run folders")
    if resamples < 100 or not 0 < confidence < 1:
        raise ValueError(f"compare: needs resamples >= 100, 0 < confidence < 1, got {resamples}, {confidence}")
    runs = _read_runs([Path(f) for f in folders])
    ids = _common_samples(runs)
    norms = [n for n in _norms(runs[0]) if all(n in _norms(run) for run in runs)]
    if not norms:
        raise RunError("the runs have no norm in common")
    parts = [_compare_norm(runs, norm, ids, resamples, confidence, seed) for norm in norms]
    return Comparison([run.name for run in runs], len(ids), confidence, resamples, parts, _warnings(runs, len(ids)))


def _read_runs(folders: list[Path]) -> list[Run]:
    short = [folder.resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [Run(n, read_manifest(f), read_results(f)) for n, f in zip(names, folders, strict=True)]


def _norms(run: Run) -> list[str]:
    return list(dict.fromkeys(task["norm"] for task in run.settings["tasks"]))


def _common_samples(runs: list[Run]) -> metrics.Floats:
    """Indices of the samples that all runs hold; a run holds its first so many."""
    count = min(run.settings["samples"] for run in runs)
    labels = [run.results["label"].slice(0, count).to_numpy() for run in runs]
    for run, other in zip(runs[1:], labels[1:], strict=True):
        if not np.array_equal(labels[0], other):
            raise RunError(f"{run.name} has other labels than {runs[0].name}: these are not the same samples")
        for key in ("bounds", "targets_sha256"):
            if run.settings[key] != runs[0].settings[key]:
                raise RunError(f"{run.name} and {runs[0].name} differ in {key.removesuffix('_sha256')}")
    return np.arange(count)


def _warnings(runs: list[Run], samples: int) -> list[str]:
    first, found = runs[0], []
    if len({run.settings["samples"] for run in runs}) > 1:
        found.append(f"The runs have different numbers of samples; compared on the first {samples}.")
    elif len({run.settings["data_sha256"] for run in runs}) > 1:
        found.append("The runs' inputs differ although their labels agree: is this the same data?")
    for run in runs[1:]:
        if _attacks(run) != _attacks(first):
            found.append(f"{run.name} and {first.name} were attacked differently.")
        differing = [key for key in EFFORT if run.settings[key] != first.settings[key]]
        if differing:
            found.append(f"{run.name} and {first.name} differ in {', '.join(differing).replace('_', ' ')}.")
    return found


def _attacks(run: Run) -> list[tuple[str, str]]:
    return [(task["norm"], task["function"]) for task in run.settings["tasks"]]


def _compare_norm(
    runs: list[Run], norm: str, ids: metrics.Floats, resamples: int, confidence: float, seed: int
) -> NormComparison:
    outcomes = [run.best(norm, ids) for run in runs]
    distances = np.stack([o.distances for o in outcomes], axis=1)  # (N, R)
    sweeps = [set(o.budgets) for o in outcomes if o.budgets]
    d_max = float(metrics.largest_distance(distances)) or 1.0
    if sweeps:
        shared = sorted(set.intersection(*sweeps))
        if not shared:
            raise RunError(f"the runs' sweeps in {norm} have no eps in common")
        eps = np.array([0.0, *shared])
        thresholds = metrics.spread(shared, THRESHOLDS)
    else:
        thresholds = metrics.round_thresholds(distances[:, 0], whole=norm == "l0", count=THRESHOLDS)
        eps = np.unique([*np.linspace(0, d_max, GRID), *thresholds])
    # (N, R, G) indicators of robustness; means over N are accuracies. The last column is the clipped distance.
    robust = (distances[:, :, None] > eps).astype(np.float64)
    clipped = np.minimum(distances, d_max)[:, :, None]
    resampled = resampled_means(np.concatenate([robust, clipped], axis=2), resamples, seed)
    curves = resampled[:, :, :-1]
    accuracy = robust.mean(axis=0)
    if sweeps:
        area = np.array([metrics.area_under_sweep(eps, a) for a in accuracy])
        areas = ((curves[..., 1:] + curves[..., :-1]) / 2 * np.diff(eps)).sum(axis=-1)
    else:
        area, areas = clipped.mean(axis=0)[:, 0], resampled[:, :, -1]
    difference = accuracy - accuracy[0]
    difference_interval = interval(curves - curves[:, :1], confidence)
    area_interval = interval(areas - areas[:, :1], confidence)
    at = [int(np.searchsorted(eps, t)) for t in thresholds]
    medians = [None if o.budgets else metrics.median_distance(o.correct, o.distances) for o in outcomes]
    areas_shown = [
        (formatting.distance(float(a)), _change(d, *i, ".3g")) for a, d, i in _with_intervals(area, area_interval)
    ]
    rows = [
        ("clean accuracy", [(formatting.percent(float(o.correct.mean())), "") for o in outcomes]),
        ("median norm", [(formatting.distance(m), "") for m in medians]),
        ("area under curve", areas_shown),
    ]
    for g, threshold in zip(at, thresholds, strict=True):
        shown = _with_intervals(accuracy[:, g], (difference_interval[0][:, g], difference_interval[1][:, g]))
        cells = [(formatting.percent(float(a)), _change(100 * d, 100 * i[0], 100 * i[1], ".1f")) for a, d, i in shown]
        rows.append((f"at eps {formatting.threshold(threshold)}", cells))
    rows = [(name, [(value, change if r else "") for r, (value, change) in enumerate(cells)]) for name, cells in rows]
    figures = {}
    for r, (run, outcome) in enumerate(zip(runs, outcomes, strict=True)):
        figures[run.name] = {
            "clean_accuracy": float(outcome.correct.mean()),
            "median": medians[r],
            "area": float(area[r]),
            "area_difference": _triple(area[r] - area[0], area_interval, (r,)),
            "robust_accuracy": [
                {
                    "eps": float(eps[g]),
                    "accuracy": float(accuracy[r, g]),
                    "difference": _triple(difference[r, g], difference_interval, (r, g)),
                }
                for g in at
            ],
        }
    crossings = []
    for a, b in combinations(range(len(runs)), 2):
        low, high = interval(curves[:, b] - curves[:, a], confidence)
        gap = accuracy[b] - accuracy[a]
        found = supported_crossings(eps, gap, low, high)
        crossings += [_sentence(runs[a].name, runs[b].name, crossing, gap, eps) for crossing in found]
    return NormComparison(
        norm=norm,
        eps=eps,
        swept=bool(sweeps),
        accuracy=accuracy,
        accuracy_interval=interval(curves, confidence),
        difference=difference,
        difference_interval=difference_interval,
        rows=rows,
        crossings=crossings,
        figures=figures,
    )


Interval = tuple[metrics.Floats, metrics.Floats]


def _with_intervals(values: metrics.Floats, bounds: Interval) -> list[tuple[float, float, tuple[float, float]]]:
    """Per run: its value, the difference to the first run's, and that difference's interval."""
    return [(v, v - values[0], (low, high)) for v, low, high in zip(values, *bounds, strict=True)]


def _change(value: float, low: float, high: float, form: str) -> str:
    return f"{value:+{form}} [{low:{form}}, {high:{form}}]"


def _triple(value: float, bounds: Interval, index: tuple[int, ...]) -> list[float]:
    """[difference, low, high] as plain numbers."""
    return [float(value), float(bounds[0][index]), float(bounds[1][index])]


def _sentence(
    first: str, second: str, crossing: tuple[float, float, float], difference: metrics.Floats, eps: metrics.Floats
) -> str:
    at, before, after = crossing
    better_after = second if difference[int(np.searchsorted(eps, after))] > 0 else first
    return (
        f"{first} and {second} cross at eps {at:.3g} (supported from {before:.3g} to {after:.3g}): "
        f"{better_after} is the more robust above."
    )

"""The measures of robustness, from per-sample distances in float64.

Everywhere a *distance* is the norm of the smallest perturbation found for a sample: 0 where the sample is
misclassified as it is, ∞ where no adversarial example was found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)


def distances_of(correct: Bools, adversarial: Bools, norms: Floats) -> Floats:
    """Distances (N,) of a minimum-norm attack from what was verified of its points."""
    return np.where(correct, np.where(adversarial, norms, math.inf), 0.0)


def sweep_distances(correct: Bools, adversarial: Bools, budgets: Sequence[float]) -> Floats:
    """Distances (N,) of a budget attack: the smallest swept eps that broke the sample.

    Args:
        correct: (N,).
        adversarial: (E, N), one row a budget.
        budgets: E ascending values. A sample broken at one is broken at every larger one.
    """
    first = adversarial.argmax(axis=0)
    broken = np.where(adversarial.any(axis=0), np.asarray(budgets, dtype=np.float64)[first], math.inf)
    return np.where(correct, broken, 0.0)


def robust_accuracy(distances: Floats, eps: float) -> float:
    """Share of all samples that are correct and whose distance is larger than ``eps``, in [0, 1]."""
    return float(np.mean(distances > eps))


def step_curve(distances: Floats) -> tuple[Floats, Floats]:
    """Robust accuracy as a function of eps: the value at each eps holds up to the next one.

    Returns:
        (eps, accuracy): 0 and the distinct finite distances in ascending order, and the accuracy at each.
    """
    finite = distances[np.isfinite(distances)]
    eps = np.unique(np.concatenate([[0.0], finite]))
    # Distances are sorted once; those larger than eps are what lies right of it.
    larger = len(distances) - np.searchsorted(np.sort(distances), eps, side="right")
    return eps, larger / len(distances)


def swept_curve(distances: Floats, budgets: Sequence[float]) -> tuple[Floats, Floats]:
    """Robust accuracy at 0 and at each swept eps; between them nothing was measured."""
    eps = np.array([0.0, *budgets], dtype=np.float64)
    return eps, np.array([robust_accuracy(distances, e) for e in eps])


def area_under_steps(distances: Floats, d_max: float) -> float:
    """∫ robust accuracy d eps from 0 to ``d_max``, which equals the mean of min(distance, d_max)."""
    return float(np.mean(np.minimum(distances, d_max)))


def area_under_sweep(eps: Floats, accuracy: Floats) -> float:
    """Area under the swept accuracies by the trapezoidal rule, from 0 to the largest eps."""
    return float(np.sum((eps[1:] - eps[:-1]) * (accuracy[1:] + accuracy[:-1]) / 2))


def largest_distance(distances: Floats) -> float:
    """The largest finite distance, where curves end; 0 if there is none."""
    finite = distances[np.isfinite(distances)]
    return float(finite.max()) if finite.size else 0.0


def success_rate(correct: Bools, distances: Floats) -> float | None:
    """Share of the initially correct samples that were broken, in [0, 1]; None if none was correct."""
    return float(np.mean(np.isfinite(distances[correct]))) if correct.any() else None


def median_distance(correct: Bools, distances: Floats) -> float | None:
    """Median over initially correct samples, failures counting as ∞; None if none was correct."""
    if not correct.any():
        return None
    ordered = np.sort(distances[correct])
    middle = len(ordered) // 2
    # numpy's median averages ∞ with ∞ to NaN in some versions; two middle values are averaged here.
    return float(ordered[middle]) if len(ordered) % 2 else float(ordered[middle - 1] + ordered[middle]) / 2


def mean_distance(correct: Bools, distances: Floats) -> float | None:
    """Mean over the initially correct samples that were broken; None if there are none.

    It says little without the success rate: an attack that breaks only the easy samples has a small mean.
    """
    broken = distances[correct & np.isfinite(distances)]
    return float(broken.mean()) if broken.size else None


def optimality(distances: Floats, best: Floats, clean_accuracy: float) -> float | None:
    """How near an attack comes to the per-sample best of several, in [0, 1].

    1 − (A − A*) / (clean · d_max − A*), with A the area under the attack's curve clipped at d_max, A* that of the
    best, and d_max the best's largest finite distance. 1: as good on every sample; 0: it never finds anything.

    Returns:
        None where d_max or the denominator is 0.

    Source: AttackBench (Cinà et al., 2024), section 3.
    """
    d_max = largest_distance(best)
    reference = area_under_steps(best, d_max)
    worst = clean_accuracy * d_max
    return None if worst <= reference else 1 - (area_under_steps(distances, d_max) - reference) / (worst - reference)


def round_thresholds(distances: Floats, whole: bool, count: int = 5) -> tuple[float, ...]:
    """``count`` evenly spaced round thresholds that reach to about the 90 % quantile of the positive distances.

    The step is one of `ROUND` times a power of ten (for counts a whole number), the largest that keeps the last
    threshold below the quantile.

    Args:
        distances: (N,).
        whole: only whole numbers, for l0.
        count: how many.
    """
    positive = distances[np.isfinite(distances) & (distances > 0)]
    reach = float(np.quantile(positive, 0.9)) if positive.size else 1.0
    target = reach / count
    if whole and target < 1:
        return tuple(float(i) for i in range(1, count + 1))
    power = math.floor(math.log10(target))
    steps = [m * 10.0**p for p in (power - 1, power) for m in ROUND if not (whole and m * 10.0**p % 1)]
    step = max(s for s in steps if s <= target * (1 + 1e-9))
    # Rounded to the step's own digits, so that 3 · 0.1 prints and compares as 0.3.
    return tuple(round(step * i, 2 - power) for i in range(1, count + 1))


def spread(values: ArrayLike, count: int = 5) -> tuple[float, ...]:
    """At most ``count`` of the values, evenly picked, the first and the last among them."""
    array = np.asarray(values, dtype=np.float64)
    picked = np.unique(np.linspace(0, len(array) - 1, min(count, len(array))).round().astype(int))
    return tuple(float(v) for v in array[picked])

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrobust.evaluation import metrics

INF = math.inf
# Five samples: one misclassified, three broken, one never.
CORRECT = np.array([False, True, True, True, True])
DISTANCES = np.array([0.0, 1.0, 2.0, 4.0, INF])


def test_distances_are_zero_where_wrong_and_infinite_where_the_attack_failed() -> None:
    adversarial = np.array([True, True, True, True, False])
    norms = np.array([9.0, 1.0, 2.0, 4.0, 7.0])
    assert metrics.distances_of(CORRECT, adversarial, norms).tolist() == DISTANCES.tolist()
    assert metrics.distances_of(CORRECT, adversarial, np.full(5, math.nan))[4] == INF


def test_robust_accuracy_is_over_all_samples_and_strict() -> None:
    assert [metrics.robust_accuracy(DISTANCES, e) for e in (0, 0.5, 1, 2, 4, 100)] == [0.8, 0.8, 0.6, 0.4, 0.2, 0.2]


def test_step_curve_by_hand() -> None:
    eps, accuracy = metrics.step_curve(DISTANCES)
    assert eps.tolist() == [0, 1, 2, 4]
    assert accuracy.tolist() == [0.8, 0.6, 0.4, 0.2]


def test_success_median_and_mean_by_hand() -> None:
    assert metrics.success_rate(CORRECT, DISTANCES) == 0.75
    assert metrics.median_distance(CORRECT, DISTANCES) == 3.0
    assert metrics.mean_distance(CORRECT, DISTANCES) == 7 / 3


def test_failures_count_as_infinite_in_the_median() -> None:
    correct = np.ones(4, dtype=bool)
    assert metrics.median_distance(correct, np.array([1, 2, INF, INF])) == INF
    assert metrics.median_distance(correct, np.full(4, INF)) == INF
    assert metrics.mean_distance(correct, np.full(4, INF)) is None


def test_without_correct_samples_there_is_nothing_to_average() -> None:
    nothing = np.zeros(3, dtype=bool)
    assert metrics.success_rate(nothing, np.zeros(3)) is None
    assert metrics.median_distance(nothing, np.zeros(3)) is None
    assert metrics.mean_distance(nothing, np.zeros(3)) is None


def test_area_under_steps_by_hand() -> None:
    # 0.8 up to 1, 0.6 up to 2, 0.4 up to 4.
    assert metrics.area_under_steps(DISTANCES, 4) == pytest.approx(0.8 + 0.6 + 2 * 0.4)
    assert metrics.area_under_steps(DISTANCES, 5) == pytest.approx(0.8 + 0.6 + 2 * 0.4 + 0.2)


@given(st.lists(st.one_of(st.floats(0, 100), st.just(INF)), min_size=1, max_size=30), st.floats(0.1, 200))
def test_area_is_the_integral_of_the_curve(values: list[float], d_max: float) -> None:
    distances = np.array(values)
    eps, accuracy = metrics.step_curve(distances)
    ends = np.minimum(np.append(eps[1:], INF), d_max)
    integral = np.sum(accuracy * np.maximum(ends - np.minimum(eps, d_max), 0))
    assert metrics.area_under_steps(distances, d_max) == pytest.approx(integral, abs=1e-9)


@given(st.lists(st.one_of(st.floats(0, 100), st.just(INF)), min_size=1, max_size=30))
def test_the_curve_is_the_robust_accuracy_at_its_own_points(values: list[float]) -> None:
    distances = np.array(values)
    eps, accuracy = metrics.step_curve(distances)
    assert accuracy.tolist() == [metrics.robust_accuracy(distances, e) for e in eps]
    assert (np.diff(accuracy) < 0).all() or len(eps) == 1 or distances.min() > 0


def test_a_sample_broken_at_one_budget_is_broken_at_every_larger_one() -> None:
    correct = np.array([True, True, True, False])
    adversarial = np.array([[True, False, False, True], [False, True, False, True], [False, False, False, True]])
    distances = metrics.sweep_distances(correct, adversarial, (0.1, 0.2, 0.3))
    assert distances.tolist() == [0.1, 0.2, INF, 0.0]
    eps, accuracy = metrics.swept_curve(distances, (0.1, 0.2, 0.3))
    assert eps.tolist() == [0, 0.1, 0.2, 0.3]
    assert accuracy.tolist() == [0.75, 0.5, 0.25, 0.25]


def test_area_under_a_sweep_is_trapezoidal_from_the_clean_accuracy() -> None:
    assert metrics.area_under_sweep(np.array([0, 1, 3.0]), np.array([1, 0.5, 0.0])) == 0.75 + 0.5


def test_optimality_by_hand() -> None:
    best = np.array([1.0, 2.0, 4.0])
    assert metrics.optimality(best, best, 1.0) == 1
    assert metrics.optimality(np.full(3, INF), best, 1.0) == pytest.approx(0)
    # Areas up to 4: best 7/3, attack (2 + 2 + 4)/3; 1 − (1/3) / (4 − 7/3).
    assert metrics.optimality(np.array([2.0, 2.0, 4.0]), best, 1.0) == pytest.approx(1 - (1 / 3) / (4 - 7 / 3))
    assert metrics.optimality(best, np.full(3, INF), 1.0) is None


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_thresholds_are_round_ascending_and_within_the_distances(values: list[float]) -> None:
    distances = np.array(values)
    thresholds = metrics.round_thresholds(distances, whole=False)
    assert len(thresholds) == 5
    assert all(a < b for a, b in itertools.pairwise(thresholds))
    assert thresholds[-1] <= np.quantile(distances, 0.9) * (1 + 1e-6)
    assert thresholds[-1] >= np.quantile(distances, 0.9) * 0.6
    assert all(len(f"{t:.10e}".split("e")[0].rstrip("0").replace(".", "")) <= 4 for t in thresholds)


def test_thresholds_of_counts_are_whole() -> None:
    assert metrics.round_thresholds(np.array([1.0, 2.0]), whole=True) == (1, 2, 3, 4, 5)
    assert metrics.round_thresholds(np.full(5, 48.0), whole=True) == (8, 16, 24, 32, 40)
    assert metrics.round_thresholds(np.array([INF, 0.0]), whole=False) == (0.2, 0.4, 0.6, 0.8, 1.0)


def test_spread_keeps_both_ends() -> None:
    assert metrics.spread(range(20)) == (0, 5, 10, 14, 19)
    assert metrics.spread([3, 4]) == (3, 4)

"""Paired bootstrap: the same resamples of the samples for every run, so that what they share cancels."""

from __future__ import annotations

import itertools

import numpy as np

from pyrobust.evaluation.metrics import Floats

CHUNK = 250  # resamples at a time: bounds memory at CHUNK · N values


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of bootstrap resamples of the rows.

    Args:
        values: (N, …), one row a sample; runs to be paired stand side by side in further dimensions.
        resamples: B ≥ 1.
        seed: equal seeds, N and B give equal resamples.

    Returns:
        (B, …): the mean over N rows drawn with replacement, B times.
    """
    count = len(values)
    flat = values.reshape(count, -1)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, flat.shape[1]))
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        # How often each sample is drawn, counted for all resamples at once: far faster than a multinomial.
        drawn = generator.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        means[start : start + size] = weights @ flat / count
    return means.reshape(resamples, *values.shape[1:])


def interval(resampled: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Percentile interval over the first dimension: (low, high), each of the remaining shape."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def supported_crossings(eps: Floats, difference: Floats, low: Floats, high: Floats) -> list[tuple[float, float, float]]:
    """Where a difference of curves changes sign, and its interval excludes 0 on either side.

    Args:
        eps: (G,) ascending.
        difference: (G,) of the curves.
        low: (G,) lower ends of its intervals.
        high: (G,) upper ends.

    Returns:
        (eps of the crossing, last eps before it that supports the old sign, first one after that supports the new).
        The crossing is interpolated linearly where the difference changes sign; of several changes between the two
        supporting eps, the first is given.
    """
    sign = np.where(low > 0, 1, np.where(high < 0, -1, 0))
    supported = np.flatnonzero(sign)
    found = []
    for before, after in itertools.pairwise(supported):
        if sign[before] == sign[after]:
            continue
        stretch = range(before, after)
        at = next(i for i in stretch if difference[i] * sign[before] > 0 >= difference[i + 1] * sign[before])
        share = difference[at] / (difference[at] - difference[at + 1])
        found.append((float(eps[at] + share * (eps[at + 1] - eps[at])), float(eps[before]), float(eps[after])))
    return found

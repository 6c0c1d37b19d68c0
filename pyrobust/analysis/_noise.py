"""Noise images, from which classes and units are made to appear."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, check_bounds


def noise_images(ids: Tensor, shape: Sequence[int], noise: Bounds, dtype: torch.dtype, seed: int) -> Tensor:
    """(n, *shape) uniform in ``noise``, on the device of ``ids``; image i depends on (seed, ids[i]) alone."""
    low, high = noise
    like = torch.empty((len(ids), *shape), dtype=dtype, device=ids.device)
    unit = ops.sample_lp_ball(like, math.inf, 0.5 * (high - low), seed=seed, sample_ids=ids)
    return unit.add_(0.5 * (low + high)).clamp_(low, high)


def check_noise(noise: Bounds, bounds: Bounds) -> Bounds:
    """``bounds`` as floats.

    Raises:
        ValueError: ``bounds`` or ``noise`` is no range, or ``noise`` not inside ``bounds``.
    """
    low, high = check_bounds(bounds)
    try:
        inner = check_bounds(noise)
    except ValueError as error:
        raise ValueError(f"noise: expected finite low < high, got {noise!r}") from error
    if inner[0] < low or inner[1] > high:
        raise ValueError(f"noise: expected a range inside bounds {bounds}, got {noise!r}")
    return low, high


def unbounded_radius(images: Tensor, bounds: Bounds) -> float:
    """A radius that no ball around a point of the box can bind at, in any norm."""
    return (bounds[1] - bounds[0]) * images[0].numel()

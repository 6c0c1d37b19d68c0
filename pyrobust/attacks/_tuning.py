"""The step size of the thesis preset: the best of five on images held back from the evaluation (seed 003, §5.4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from pyrobust import ops
from pyrobust.attacks._common import Model, check_positive
from pyrobust.attacks._runs import THESIS_STEP_SIZES, Schedule, thesis_schedule

Tuning = tuple[Tensor, Tensor]


def thesis_step_size(
    attack: Callable[..., Tensor],
    model: Model,
    tuning: Tuning | None,
    *,
    norm: str,
    grouping: str = "value",
    **options: Any,
) -> float:
    """The one of 0.01, 0.05, 0.1, 0.5 and 1 with the most successes, then the smallest mean norm, on the held-back
    images.

    Args:
        attack: with ``preset`` and ``step_size``.
        tuning: (inputs, labels) that are not among those to be reported.

    Raises:
        ValueError: ``tuning`` is missing, or no pair.
    """
    if not isinstance(tuning, (tuple, list)) or len(tuning) != 2:
        raise ValueError(
            'tuning: preset="thesis" without step_size needs (inputs, labels) held back from the evaluation'
        )
    inputs, labels = tuning
    best = (math.inf, math.inf)
    chosen = THESIS_STEP_SIZES[0]
    extra = {"grouping": grouping} if norm == "l0" else {}
    for step_size in THESIS_STEP_SIZES:
        adv = attack(model, inputs, labels, norm=norm, preset="thesis", step_size=step_size, **options, **extra)
        norms = ops.lp_norm(adv - inputs, norm, grouping)
        moved = norms > 0
        result = (float((~moved).sum()), float(norms[moved].double().mean()) if bool(moved.any()) else math.inf)
        if result < best:
            best, chosen = result, step_size
    return chosen


def choose_schedule(
    attack: Callable[..., Tensor],
    model: Model,
    default: Schedule,
    step_size: float | None,
    preset: str | None,
    tuning: Tuning | None,
    refine: bool,
    **options: Any,
) -> Schedule:
    """The schedule that the arguments of an attack ask for: its default, with another first step size of the first run
    (which is a refining one where ``refine``), or the thesis's.

    Raises:
        ValueError: another preset; ``tuning`` without the preset, or missing where the preset needs it.
    """
    if step_size is not None:
        check_positive(step_size=step_size)
    if preset is None:
        if tuning is not None:
            raise ValueError('tuning: applies to preset="thesis" alone')
        if step_size is None:
            return default
        closing = default.closing
        refining = closing.step_size if closing is not None else default.refine_step_size
        scale = step_size / (refining if refine else default.step_size)[0]

        def scaled(sizes: tuple[float, float]) -> tuple[float, float]:
            return scale * sizes[0], scale * sizes[1]

        return replace(
            default,
            step_size=scaled(default.step_size),
            refine_step_size=scaled(default.refine_step_size),
            closing=None if closing is None else closing._replace(step_size=scaled(closing.step_size)),
        )
    if preset != "thesis":
        raise ValueError(f'preset: expected None or "thesis", got {preset!r}')
    if step_size is None:
        step_size = thesis_step_size(attack, model, tuning, **options)
    return replace(thesis_schedule(step_size), damping=default.damping)

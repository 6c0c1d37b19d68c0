"""How numbers look in tables, on the terminal and in reports alike."""

from __future__ import annotations

import math
from datetime import datetime

NORM_NAMES = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}
NONE = "–"


def percent(share: float | None) -> str:
    """A share as a percentage with one decimal."""
    return NONE if share is None else f"{100 * share:.1f} %"


def distance(value: float | None) -> str:
    """A norm to three significant digits, whole where it is a count, ∞ where it is infinite."""
    if value is None:
        return NONE
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if value >= 1000 or value == int(value) else f"{value:#.3g}".rstrip(".")


def threshold(value: float) -> str:
    """An eps with no more digits than it needs."""
    return f"{value:.6g}"


def count(value: float | None) -> str:
    """A mean number of passes: whole from a hundred on, else to three significant digits."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, else minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def date(iso: str) -> str:
    """An ISO date and time as "3 May 2026, 14:05 UTC"."""
    moment = datetime.fromisoformat(iso)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname()}"

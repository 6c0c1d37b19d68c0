"""Read what the command line says of norms, attacks and budgets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyrobust._checks import norm_name


def norms(given: list[str] | None) -> list[str]:
    """Canonical names of the norms, all four where none is given."""
    return [_norm(text) for text in _split(given)] or ["linf", "l2", "l1", "l0"]


def floats(text: str, option: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"--{option}: expected numbers separated by commas, got {text!r}") from None


def attacks(given: list[str] | None, chosen: list[str]) -> Any:
    """None, a list of names for all norms, or a mapping from norm to names where any is written ``norm=name``."""
    entries = _split(given)
    if not any("=" in entry for entry in entries):
        return entries or None
    found: dict[str, list[str]] = {norm: [] for norm in chosen}
    for entry in entries:
        norm, separator, name = entry.partition("=")
        if not separator:
            raise ValueError(f"--attack: {entry!r} names no norm while others do; write norm=name for all or for none")
        if _norm(norm) not in found:
            raise ValueError(f"--attack: {entry!r} is for a norm that is not evaluated")
        found[_norm(norm)].append(name)
    return found


def eps(given: list[str] | None) -> Any:
    """None, a list for the one norm, or a mapping from norm to list where it is written ``norm=values``."""
    if not given:
        return None
    if not any("=" in text for text in given):
        return [value for text in given for value in floats(text, "eps")]
    found: dict[str, list[float]] = {}
    for text in given:
        norm, separator, values = text.partition("=")
        if not separator:
            raise ValueError(f"--eps: {text!r} names no norm while others do; write norm=values")
        found.setdefault(_norm(norm), []).extend(floats(values, "eps"))
    return found


def _split(values: Iterable[str] | None) -> list[str]:
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def _norm(text: str) -> str:
    return norm_name(float(text) if text in ("0", "1", "2", "inf") else text)

"""How far evaluations and analyses are, as both tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a run, or one computation of an analysis, is.

    Attributes:
        title: what is running now.
        done: units finished, those of an earlier run included. A unit of an evaluation is one sample under one attack (at one
            budget); what it is in an analysis is up to the computation.
        resumed: of these, units that an earlier run had finished.
        total: units in all.
    """

    title: str
    done: int
    resumed: int
    total: int

"""What can be read of tables 5.1–5.8 of seed 003: the numbers are in pdpgd_paper.toml."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

# The networks that each table is about; 5.1 and 5.5 hold means over several, the others robust accuracies of one.
TABLES = {
    "5.1": ("mnist plain", "mnist linf-at", "mnist l2-at"),
    "5.2": ("mnist plain",),
    "5.3": ("mnist linf-at",),
    "5.4": ("mnist l2-at",),
    "5.5": ("cifar10 plain", "cifar10 linf-at", "cifar10 l2-at"),
    "5.6": ("cifar10 plain",),
    "5.7": ("cifar10 linf-at",),
    "5.8": ("cifar10 l2-at",),
}
MEANS = ("5.1", "5.5")


@dataclass(frozen=True)
class Block:
    """One norm of one table.

    Attributes:
        rows: thresholds, or names of networks, as printed.
        columns: by attack, a number a row; NaN where it cannot be read.
        unit: of the printed numbers.
    """

    table: str
    norm: str
    rows: tuple[str, ...] = ()
    columns: dict[str, list[float]] = field(default_factory=dict)
    unit: float = 1.0

    @property
    def thresholds(self) -> tuple[float, ...]:
        return tuple(float(Fraction(row)) for row in self.rows)

    def number(self, attack: str, row: str) -> float | None:
        """The printed number in units of 1, or None where it cannot be read."""
        if attack not in self.columns or row not in self.rows:
            return None
        printed = self.columns[attack][self.rows.index(row)]
        return None if math.isnan(printed) else round(printed * self.unit, 6)


def read() -> tuple[dict[tuple[str, str], Block], dict[str, float]]:
    """The blocks by (table, norm), and the clean accuracies by network."""
    content = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    blocks = [Block(**{**entry, "rows": tuple(entry["rows"])}) for entry in content["block"]]
    return {(block.table, block.norm): block for block in blocks}, content["clean"]

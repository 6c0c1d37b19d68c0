"""Tables on screen and JSON on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = None  # type: ignore[assignment,misc]

Row = dict[str, Any]


def table(title: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Print the columns of the rows; figures with three digits, None as a dash."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    print(title)
    if Console is not None:
        shown = Table(box=None, header_style="bold", padding=(0, 1))
        for i, column in enumerate(columns):
            numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
            shown.add_column(column, justify="right" if numeric else "left", no_wrap=i == 0, overflow="fold")
        for line in cells:
            shown.add_row(*line)
        console = Console()
        Console(width=None if console.is_terminal else 160).print(shown)
        print()
        return
    widths = [
        max(len(column), *(len(line[i]) for line in cells)) if cells else len(column)
        for i, column in enumerate(columns)
    ]
    for line in [list(columns), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def notes(rows: Sequence[Row], name: str = "op") -> None:
    """Print each note once, with the rows that have it."""
    told: dict[str, list[str]] = {}
    for row in rows:
        if row.get("note"):
            told.setdefault(row["note"], []).append(str(row[name]))
    for note, names in told.items():
        distinct = list(dict.fromkeys(names))
        print(f"  – {', '.join(distinct) if len(distinct) <= 6 else f'{len(names)} of {len(rows)} rows'}: {note}")
    if told:
        print()


def bar(what: str, limit: float, measured: float | None, *, at_least: bool = False) -> Row:
    """One line of the issue's table of bars; ``ok`` is None where nothing was measured."""
    known = measured is not None and math.isfinite(measured)
    ok = (measured >= limit if at_least else measured <= limit) if known else None  # type: ignore[operator]
    return {
        "what": what,
        "bar": f"{'≥' if at_least else '≤'} {limit:g}",
        "measured": measured if known else None,
        "ok": ok,
    }


def show_bars(bars: Sequence[Row]) -> None:
    table("Bars (for information)", bars, ("what", "bar", "measured", "ok"))


def save(path: Path, content: dict[str, Any]) -> None:
    """Write JSON; NaN and infinities become null, so that any reader takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

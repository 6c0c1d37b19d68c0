"""Write an analysis to a folder: numbers (JSON), pictures (PNG), and one HTML page that needs nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pyrobust._files import write_atomically
from pyrobust.analysis.slider import REM, Slider
from pyrobust.analysis.work import slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "analysis.html"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is text, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: unique on the page; names the files.
        text: what is seen and how it was computed.
        figure: becomes a PNG file, and an SVG on the page.
        table: shown as it is.
        slider: frames on the page.
        data: numbers for the JSON; tensors, arrays and dataclasses become lists and mappings.
    """

    title: str
    text: str
    figure: Figure | None = None
    table: Table | None = None
    slider: Slider | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def write_page(
    folder: Path,
    heading: str,
    sections: Sequence[Section],
    settings: Sequence[tuple[str, str]] = (),
    environment: Mapping[str, Any] | None = None,
    subtitle: str = "",
) -> Path:
    """Write summary.json, a PNG a figure, and the page.

    Args:
        folder: made if it does not exist.
        heading: of the page.
        sections: in order.
        settings: what is needed to repeat the analysis, as (name, value).
        environment: versions and machine.
        subtitle: a line below the heading.

    Returns:
        The path of the page.

    Raises:
        ValueError: two titles name the same files.
    """
    from pyrobust.evaluation.plots import png, styled, svg_uri
    from pyrobust.evaluation.report import template
    from pyrobust.evaluation.store import write_json

    names = [slug(section.title) for section in sections]
    if len(set(names)) < len(names):
        raise ValueError(f"sections: expected titles that differ, got {', '.join(s.title for s in sections)}")
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for name, section in zip(names, sections, strict=True):
        picture = slider = ""
        width = 0.0
        if section.figure is not None:
            width = section.figure.get_figwidth() * REM
            with styled():
                content = png(section.figure)
                picture = svg_uri(section.figure)
            _write(folder / f"{name}.png", content)
        if section.slider is not None:
            slider = section.slider.html(name)
        shown.append({"section": section, "picture": picture, "width": width, "slider": slider})
    data = {name: plain(section.data) for name, section in zip(names, sections, strict=True) if section.data}
    write_json(folder / SUMMARY, {"environment": dict(environment or {}), **data})
    page = template("analysis.html.j2").render(
        heading=heading, subtitle=subtitle, shown=shown, settings=settings, environment=environment or {}
    )
    _write(folder / PAGE, page.encode("utf-8"))
    return folder / PAGE


def plain(value: Any) -> Any:
    """The value as JSON data: tensors and arrays as lists, dataclasses and named tuples as mappings, NaN as None, and
    infinities as the strings "inf" and "-inf"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))

"""Write a comparison of runs: one figure, one JSON file, one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrobust._files import write_atomically
from pyrobust.evaluation import plots
from pyrobust.evaluation.compare import Comparison, NormComparison
from pyrobust.evaluation.metrics import Floats
from pyrobust.evaluation.report import template
from pyrobust.evaluation.results import finite_json
from pyrobust.evaluation.store import write_json

PAGE = "comparison.html"


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write comparison.html, comparison.png and comparison.json to ``folder``; returns the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with plots.styled():
        figure = _draw(comparison)
        image, uri = plots.png(figure), plots.svg_uri(figure)
    html = template("comparison.html.j2").render(comparison=comparison, figure=uri)
    content = {
        "runs": comparison.runs,
        "samples": comparison.samples,
        "confidence": comparison.confidence,
        "resamples": comparison.resamples,
        "norms": {part.norm: {"runs": part.figures, "crossings": part.crossings} for part in comparison.norms},
        "warnings": comparison.warnings,
    }
    write_json(folder / "comparison.json", finite_json(content))
    write_atomically(folder / "comparison.png", lambda file: file.write(image))
    write_atomically(folder / PAGE, lambda file: file.write(html.encode("utf-8")))
    return folder / PAGE


def _draw(comparison: Comparison) -> Figure:
    """A row a norm: on the left the curves with their intervals, on the right differences to the first run."""
    titles = []
    for part in comparison.norms:
        label = plots.NORM_LABELS[part.norm]
        titles += [label, f"{label}, difference to {comparison.runs[0]}"]
    figure, axes = plots.panels(titles)
    for number, part in enumerate(comparison.norms):
        left, right = axes[2 * number : 2 * number + 2]
        for r, name in enumerate(comparison.runs):
            colour = plots.COLOURS[r % len(plots.COLOURS)]
            _band(left, part, part.accuracy[r], [b[r] for b in part.accuracy_interval], colour, name)
            if r:
                _band(right, part, part.difference[r], [b[r] for b in part.difference_interval], colour, name)
        plots.finish_curves(left, part.norm, float(part.eps[-1]))
        left.legend(loc="upper right")
        right.axhline(0, color="#444444", linewidth=0.8)
        right.set_xlim(left.get_xlim())
        right.set_xlabel(plots.eps_label(part.norm))
        right.set_ylabel("percentage points")
    return figure


def _band(axis: Axes, part: NormComparison, line: Floats, band: list[Floats], colour: str, label: str) -> None:
    eps, marker = part.eps, "o" if part.swept else None
    axis.fill_between(eps, 100 * band[0], 100 * band[1], color=colour, alpha=0.18, linewidth=0)
    axis.plot(eps, 100 * line, color=colour, linewidth=1.3, marker=marker, markersize=3, label=label)

"""Write a report to a folder: tables, figures, and one HTML file that needs nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pyrobust._files import write_atomically
from pyrobust.evaluation import formatting, plots
from pyrobust.evaluation.metrics import spread
from pyrobust.evaluation.outcomes import BEST, Outcome
from pyrobust.evaluation.results import Report, finite_json
from pyrobust.evaluation.store import MANIFEST, RESULTS, write_json, write_table

REPORT = "report.html"
SUMMARY = "summary.json"
COLUMNS = 5


def write_report(report: Report, folder: Path) -> Path:
    """Write results.parquet, summary.json, curves.png, examples.png, report.html (and run.json where it is missing).

    Returns:
        The path of report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        write_json(folder / MANIFEST, report.manifest)
    write_table(folder / RESULTS, report.results)
    write_json(folder / SUMMARY, finite_json(report.summary()))
    with plots.styled():
        curves = plots.draw_curves(report)
        histograms = plots.draw_histograms(report)
        examples = None if report.examples is None else plots.png(plots.draw_examples(report.examples))
        _write_bytes(folder / "curves.png", plots.png(curves))
        if examples is not None:
            _write_bytes(folder / "examples.png", examples)
        figures = {
            "curves": plots.svg_uri(curves),
            "histograms": None if histograms is None else plots.svg_uri(histograms),
            "examples": None if examples is None else plots.png_uri(examples),
        }
    html = template("report.html.j2").render(
        report=report,
        rows=result_rows(report),
        sweeps=[o for o in report.outcomes if len(o.budgets) > COLUMNS],
        columns=range(COLUMNS),
        figures=figures,
        settings=setting_rows(report),
        environment=report.manifest["environment"],
    )
    _write_bytes(folder / REPORT, html.encode("utf-8"))
    return folder / REPORT


def template(name: str) -> Any:
    """A template of the package, with the formatting functions as filters."""
    environment = Environment(
        loader=PackageLoader("pyrobust.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "percent": formatting.percent,
        "distance": formatting.distance,
        "threshold": formatting.threshold,
        "date": formatting.date,
        "norm_name": formatting.NORM_NAMES.__getitem__,
    }
    return environment.get_template(name)


def result_rows(report: Report) -> list[dict[str, Any]]:
    """A row an attack and norm, its cells as text: what the terminal and the HTML report both show."""
    rows = []
    for norm in report.norms:
        for outcome in report.of(norm):
            figures = outcome.figures(report.thresholds(norm))
            spent = {} if outcome.attack == BEST else report.attack_spent(outcome)
            shown = spread([p["eps"] for p in figures["robust_accuracy"]], COLUMNS)
            accuracies = [
                (formatting.threshold(p["eps"]), formatting.percent(p["accuracy"]))
                for p in figures["robust_accuracy"]
                if p["eps"] in shown
            ]
            rows.append(
                {
                    "norm": norm,
                    "attack": outcome.attack,
                    "success_rate": formatting.percent(figures["success_rate"]),
                    "median": formatting.distance(figures.get("median")),
                    "mean": formatting.distance(figures.get("mean")),
                    "area": formatting.distance(figures["area"]),
                    "d_max": formatting.distance(figures["d_max"]),
                    "accuracies": accuracies + [("", "")] * (COLUMNS - len(accuracies)),
                    "gradients": formatting.count(spent.get("gradients")),
                    "forwards": formatting.count(spent["forwards"]) if spent else "",
                    "seconds": _time(report, outcome),
                }
            )
    return rows


def setting_rows(report: Report) -> list[tuple[str, str]]:
    """Everything that is needed to repeat the run, as (name, value)."""
    settings = report.manifest["settings"]
    functions = dict.fromkeys(t["function"] for t in settings["tasks"])
    low, high = settings["bounds"]
    rows = [
        ("model", f"{report.manifest['model']}, weights and structure SHA-256 {settings['model_sha256'][:16]}"),
        ("data", f"{report.manifest['data']}, SHA-256 {settings['data_sha256'][:16]}"),
        ("samples", f"{settings['samples']}, each of shape {' × '.join(map(str, report.manifest['shape']))}"),
        ("attacks", ", ".join(functions)),
        ("steps", "each attack's own" if settings["steps"] is None else str(settings["steps"])),
        ("budget", "each attack's own" if settings["budget"] is None else f"{settings['budget']} gradients a sample"),
        ("masking check", _masking_check(settings["check_masking"])),
        ("aim", "any other class" if settings["targets_sha256"] is None else "given target classes"),
        ("bounds", f"[{low:g}, {high:g}]"),
        ("batch size", str(settings["batch_size"])),
        ("seed", str(settings["seed"])),
        ("started", report.manifest["started"]),
        ("command", shlex.join([Path(report.manifest["command"][0]).name, *report.manifest["command"][1:]])),
        ("fingerprint", report.manifest["fingerprint"][:16]),
    ]
    return rows


def _masking_check(check: dict[str, Any]) -> str:
    searches = ", ".join(f"{task['norm']} · {task['function'].rpartition(':')[2]}" for task in check["tasks"])
    return f"on the first {check['samples']} samples: {searches}" if searches else "not run"


def _time(report: Report, outcome: Outcome) -> str:
    if outcome.attack == BEST:
        return formatting.NONE
    return formatting.duration(report.attack_seconds(outcome.norm, outcome.attack))


def _write_bytes(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))

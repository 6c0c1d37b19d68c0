"""What a run found: the table of per-sample results, and the figures that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pyrobust._checks import NORMS, Norm, norm_name
from pyrobust.evaluation import diagnostics, metrics
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.examples import Examples

BEST = "best of all"


@dataclass(frozen=True)
class Outcome:
    """Distances of all samples under one attack in one norm, or under the per-sample best of several.

    Attributes:
        norm: canonical name.
        attack: the attack's name, or `BEST`.
        budgets: what was swept; empty for a minimum-norm attack, whose curve is known at every eps.
        correct: (N,) initially correct.
        distances: (N,) as in `pyrobust.evaluation.metrics`.
    """

    norm: str
    attack: str
    budgets: tuple[float, ...]
    correct: metrics.Bools
    distances: metrics.Floats

    @property
    def title(self) -> str:
        """Norm and attack, as reports print them."""
        return f"{self.norm} · {self.attack}"

    def curve(self) -> tuple[metrics.Floats, metrics.Floats]:
        """(eps, robust accuracy): steps for a minimum-norm attack, the swept points for a budget attack."""
        return metrics.swept_curve(self.distances, self.budgets) if self.budgets else metrics.step_curve(self.distances)

    def area(self) -> tuple[float, float]:
        """(area under the curve, the eps that it ends at): the largest finite distance, or the largest budget."""
        if self.budgets:
            return metrics.area_under_sweep(*self.curve()), self.budgets[-1]
        d_max = metrics.largest_distance(self.distances)
        return metrics.area_under_steps(self.distances, d_max), d_max

    def figures(self, thresholds: Sequence[float]) -> dict[str, Any]:
        """The measures of this outcome as plain data; distances may be infinite."""
        area, d_max = self.area()
        measures: dict[str, Any] = {
            "kind": "budget" if self.budgets else "minimum-norm",
            "success_rate": metrics.success_rate(self.correct, self.distances),
            "area": area,
            "d_max": d_max,
            "robust_accuracy": [
                {"eps": e, "accuracy": metrics.robust_accuracy(self.distances, e)} for e in (self.budgets or thresholds)
            ],
        }
        if not self.budgets:
            measures["median"] = metrics.median_distance(self.correct, self.distances)
            measures["mean"] = metrics.mean_distance(self.correct, self.distances)
        return measures


def assemble(tasks: Sequence[Task], clean: pa.Table, tables: Sequence[pa.Table]) -> pa.Table:
    """One table of all results: a row for each task and sample, tasks in order, samples in order."""
    parts = []
    for task, rows in zip(tasks, tables, strict=True):
        count = len(rows)
        columns = {
            "norm": pa.array([task.norm] * count),
            "attack": pa.array([task.attack.name] * count),
            "eps": pa.array([task.eps] * count, type=pa.float64()),
            **{name: clean[name] for name in ("sample_id", "label", "clean_prediction", "correct")},
            **{name: rows[name] for name in ("prediction", "finite", "in_bounds", "within_budget", "adversarial")},
            **{name: rows[name] for name in NORMS},
            "batch_size": rows["batch_size"],
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts).combine_chunks()


def outcomes_of(results: pa.Table, tasks: Sequence[dict[str, Any]]) -> list[Outcome]:
    """The outcome of each attack in each norm, in the order of ``tasks`` (as the manifest lists them)."""
    samples = len(results) // len(tasks)
    groups: dict[tuple[str, str], list[int]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault((task["norm"], task["attack"]), []).append(number)
    found = []
    for (norm, attack), numbers in groups.items():
        parts = [results.slice(n * samples, samples) for n in numbers]
        correct = parts[0]["correct"].to_numpy()
        adversarial = np.stack([p["adversarial"].to_numpy() for p in parts])
        budgets = tuple(e for n in numbers if (e := tasks[n]["eps"]) is not None)
        if budgets:
            distances = metrics.sweep_distances(correct, adversarial, budgets)
        else:
            distances = metrics.distances_of(correct, adversarial[0], parts[0][norm].to_numpy())
        found.append(Outcome(norm, attack, budgets, correct, distances))
    return found


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The per-sample smallest distance over several attacks in one norm; the outcome itself where there is one."""
    if len(outcomes) == 1:
        return outcomes[0]
    # Where all swept the same budgets the curve is still known at these alone.
    swept = {o.budgets for o in outcomes}
    budgets = outcomes[0].budgets if len(swept) == 1 else ()
    distances = np.minimum.reduce([o.distances for o in outcomes])
    return Outcome(outcomes[0].norm, BEST, budgets, outcomes[0].correct, distances)


class Report:
    """The results of an evaluation.

    Attributes:
        manifest: settings, environment, and what was evaluated.
        results: per-sample results, a pyarrow Table with a row for each attack (at each budget) and sample.
        warnings: signs that the figures may mislead, in full sentences.
        seconds: wall time of each attack (at each budget), in the order of ``manifest["settings"]["tasks"]``.
        examples: images to show, or None where the inputs are not images.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        results: pa.Table,
        warnings: Sequence[str],
        seconds: Sequence[float],
        examples: Examples | None,
    ) -> None:
        self.manifest, self.results, self.seconds, self.examples = manifest, results, list(seconds), examples
        self.outcomes = outcomes_of(results, self._tasks)
        self.warnings = [*warnings, *self._attack_warnings()]

    @property
    def _tasks(self) -> list[dict[str, Any]]:
        return self.manifest["settings"]["tasks"]

    @property
    def norms(self) -> list[str]:
        """The norms evaluated, in order."""
        return list(dict.fromkeys(o.norm for o in self.outcomes))

    @property
    def clean_accuracy(self) -> float:
        """Share of samples that are classified correctly as they are."""
        return float(np.mean(self.outcomes[0].correct))

    def of(self, norm: Norm) -> list[Outcome]:
        """Outcomes in one norm; with several attacks, their per-sample best comes last.

        Raises:
            ValueError: the norm was not evaluated.
        """
        name = norm_name(norm)
        single = [o for o in self.outcomes if o.norm == name]
        if not single:
            raise ValueError(f"norm: {name} was not evaluated; there are {', '.join(self.norms)}")
        return single if len(single) == 1 else [*single, best_of(single)]

    def thresholds(self, norm: Norm) -> tuple[float, ...]:
        """The eps at which tables give the robust accuracy: as asked for, else five round values."""
        name = norm_name(norm)
        asked = self.manifest["settings"]["eps"].get(name)
        if asked:
            return tuple(asked)
        return metrics.round_thresholds(self.of(name)[-1].distances, whole=name == "l0")

    def curve(self, norm: Norm, attack: str | None = None) -> tuple[metrics.Floats, metrics.Floats]:
        """Robust accuracy over eps, float64 arrays (eps, accuracy).

        For a minimum-norm attack the accuracy at each eps holds up to the next one; for a budget attack the points
        are 0 and the swept budgets.

        Args:
            norm: one of those evaluated.
            attack: its name; default: the per-sample best of all attacks in this norm.

        Raises:
            ValueError: the norm or the attack was not evaluated.
        """
        choices = self.of(norm)
        if attack is None:
            return choices[-1].curve()
        for outcome in choices:
            if outcome.attack == attack:
                return outcome.curve()
        raise ValueError(f"attack: {attack!r} was not run in {norm}; there are {', '.join(o.attack for o in choices)}")

    def summary(self) -> dict[str, Any]:
        """All figures as plain data: clean accuracy, then by norm and attack the measures of the design.

        ``success_rate``, ``median`` and ``mean`` are over initially correct samples (failures count as ∞ in the
        median, and are left out of the mean); ``robust_accuracy`` is over all samples. ``optimality`` compares the
        attacks of one norm with their per-sample best.
        """
        return {
            "model": self.manifest["model"],
            "data": self.manifest["data"],
            "samples": len(self.outcomes[0].correct),
            "clean_accuracy": self.clean_accuracy,
            "norms": {norm: self._norm_summary(norm) for norm in self.norms},
            "warnings": self.warnings,
        }

    def save(self, folder: str | Path) -> Path:
        """Write run.json, results.parquet, summary.json, the figures and report.html; returns the path of the last."""
        from pyrobust.evaluation.report import write_report

        return write_report(self, Path(folder))

    def _norm_summary(self, norm: str) -> dict[str, Any]:
        outcomes, thresholds = self.of(norm), self.thresholds(norm)
        attacks = {}
        for outcome in outcomes:
            figures = outcome.figures(thresholds)
            if len(outcomes) > 1 and outcome.attack != BEST and not outcome.budgets:
                figures["optimality"] = metrics.optimality(
                    outcome.distances, outcomes[-1].distances, self.clean_accuracy
                )
            attacks[outcome.attack] = figures
        return attacks

    def attack_seconds(self, norm: str, attack: str) -> float:
        """Wall time of one attack in one norm, all budgets together."""
        pairs = zip(self._tasks, self.seconds, strict=True)
        return math.fsum(s for t, s in pairs if (t["norm"], t["attack"]) == (norm, attack))

    def _attack_warnings(self) -> list[str]:
        settings = self.manifest["settings"]
        found = diagnostics.memory_warning(self.results, settings["batch_size"])
        samples = len(self.outcomes[0].correct)
        for outcome in self.outcomes:
            key = (outcome.norm, outcome.attack)
            numbers = [i for i, t in enumerate(self._tasks) if (t["norm"], t["attack"]) == key]
            unlimited = not outcome.budgets or diagnostics.covers_box(
                outcome.norm, outcome.budgets[-1], self.manifest["shape"], settings["bounds"]
            )
            found += diagnostics.attack_warnings(
                outcome.title,
                self.results.slice(numbers[0] * samples, len(numbers) * samples),
                failed=int(np.isinf(outcome.distances).sum()),
                correct=int(outcome.correct.sum()),
                unlimited=unlimited,
            )
        return found


def finite_json(value: Any) -> Any:
    """The same data with infinities as the strings "inf" and "-inf", which JSON lacks and ``float()`` reads."""
    if isinstance(value, dict):
        return {k: finite_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(v) for v in value]
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return value

"""What a run found: the table of per-sample results, and the figures that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pyrobust._checks import Norm, norm_name
from pyrobust.evaluation import diagnostics, metrics
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.examples import Examples
from pyrobust.evaluation.masking import leads
from pyrobust.evaluation.micro import SPENT
from pyrobust.evaluation.outcomes import BEST, Outcome, best_of, outcomes_of


class Report:
    """The results of an evaluation.

    Attributes:
        manifest: settings, environment, and what was evaluated.
        results: per-sample results, a pyarrow Table with a row for each attack (at each budget) and sample.
        warnings: signs that the figures may mislead, in full sentences.
        seconds: wall time of each attack (at each budget), in the order of ``manifest["settings"]["tasks"]``.
        examples: images to show, or None where the inputs are not images.
        leads: by norm, what attacks without gradients found beyond the attacks of the run; empty without that check.
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        results: pa.Table,
        warnings: Sequence[str],
        seconds: Sequence[float],
        examples: Examples | None,
        checked: Sequence[tuple[Task, pa.Table]] = (),
    ) -> None:
        self.manifest, self.results, self.seconds, self.examples = manifest, results, list(seconds), examples
        self.outcomes = outcomes_of(results, self._tasks)
        self.leads = leads(checked, self.outcomes) if checked else []
        behind = [lead.warning() for lead in self.leads if lead.ahead]
        self.warnings = [*warnings, *self._attack_warnings(), *behind]

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
        attacks of one norm with their per-sample best; ``gradients`` and ``forwards`` are what it asked for, a sample.
        """
        return {
            "model": self.manifest["model"],
            "data": self.manifest["data"],
            "samples": len(self.outcomes[0].correct),
            "clean_accuracy": self.clean_accuracy,
            "norms": {norm: self._norm_summary(norm) for norm in self.norms},
            "masking_check": {lead.norm: lead.figures() for lead in self.leads} or None,
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
            if outcome.attack != BEST:
                figures |= self.attack_spent(outcome)
            if len(outcomes) > 1 and outcome.attack != BEST and not outcome.budgets:
                figures["optimality"] = metrics.optimality(
                    outcome.distances, outcomes[-1].distances, self.clean_accuracy
                )
            attacks[outcome.attack] = figures
        return attacks

    def attack_spent(self, outcome: Outcome) -> dict[str, float]:
        """Gradients and forwards that an attack asked for, the mean a sample, all its budgets together."""
        rows = self._rows_of(outcome)
        return {name: float(rows[name].to_numpy().sum()) / len(outcome.correct) for name in SPENT}

    def attack_seconds(self, norm: str, attack: str) -> float:
        """Wall time of one attack in one norm, all budgets together."""
        pairs = zip(self._tasks, self.seconds, strict=True)
        return math.fsum(s for t, s in pairs if (t["norm"], t["attack"]) == (norm, attack))

    def _rows_of(self, outcome: Outcome) -> pa.Table:
        """The results of one attack in one norm, budget by budget."""
        key, samples = (outcome.norm, outcome.attack), len(outcome.correct)
        numbers = [i for i, t in enumerate(self._tasks) if (t["norm"], t["attack"]) == key]
        return self.results.slice(numbers[0] * samples, len(numbers) * samples)

    def _attack_warnings(self) -> list[str]:
        settings = self.manifest["settings"]
        found = diagnostics.memory_warning(self.results, settings["batch_size"])
        for outcome in self.outcomes:
            unlimited = not outcome.budgets or diagnostics.covers_box(
                outcome.norm, outcome.budgets[-1], self.manifest["shape"], settings["bounds"]
            )
            found += diagnostics.attack_warnings(
                outcome.title,
                self._rows_of(outcome),
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

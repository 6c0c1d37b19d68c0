"""The distances that each attack found, and the measures that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pyrobust._checks import NORMS
from pyrobust.evaluation import metrics
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.micro import SPENT

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
            **{name: rows[name] for name in (*NORMS, *SPENT)},
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

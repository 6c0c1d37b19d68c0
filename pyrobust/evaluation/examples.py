"""Which samples the report shows, and their adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pyrobust._checks import Bounds
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.subject import Samples

SHOWN = 8


@dataclass(frozen=True)
class ExampleRow:
    """One attack's points for the samples shown; None where it found no adversarial example.

    Attributes:
        title: norm and attack.
        norm: what ``distances`` are measured in.
        points: per sample (C, H, W) float32, or None.
        predictions: the model's classes of the points.
        distances: norms of the perturbations.
    """

    title: str
    norm: str
    points: list[NDArray[np.float32] | None]
    predictions: list[int]
    distances: list[float]


@dataclass(frozen=True)
class Examples:
    """Samples to show, as they are and under each norm's first attack."""

    bounds: Bounds
    labels: list[int]
    originals: NDArray[np.float32]
    rows: list[ExampleRow]


def choose_examples(clean: pa.Table, count: int = SHOWN) -> frozenset[int]:
    """The first correctly classified sample of each class, then the first others, ``count`` in all at most."""
    ids = clean["sample_id"].to_numpy()[clean["correct"].to_numpy()]
    labels = clean["label"].to_numpy()[clean["correct"].to_numpy()]
    _, firsts = np.unique(labels, return_index=True)
    others = np.setdiff1d(np.arange(len(ids)), firsts)
    return frozenset(int(i) for i in ids[np.concatenate([np.sort(firsts), others])[:count]])


def collect_examples(
    subject: Samples, bounds: Bounds, ids: Sequence[int], tasks: Sequence[Task], tables: Sequence[pa.Table]
) -> Examples:
    """Gather the kept points of the first attack of each norm; of a sweep, those at the smallest eps that worked."""
    rows = []
    for norm in dict.fromkeys(task.norm for task in tasks):
        attack = next(task.attack.name for task in tasks if task.norm == norm)
        chosen = [t for task, t in zip(tasks, tables, strict=True) if (task.norm, task.attack.name) == (norm, attack)]
        rows.append(_row(subject, norm, attack, ids, chosen))
    return Examples(bounds, subject.labels[ids].tolist(), subject.inputs[ids].float().numpy(), rows)


def _row(subject: Samples, norm: str, attack: str, ids: Sequence[int], tables: Sequence[pa.Table]) -> ExampleRow:
    shape = tuple(subject.inputs.shape[1:])
    row = ExampleRow(f"{norm} · {attack}", norm, [], [], [])
    for i in ids:
        hit = next((t for t in tables if t["adversarial"][i].as_py()), None)
        row.points.append(None if hit is None else np.frombuffer(hit["point"][i].as_py(), np.float32).reshape(shape))
        row.predictions.append(-1 if hit is None else hit["prediction"][i].as_py())
        row.distances.append(float("inf") if hit is None else hit[norm][i].as_py())
    return row

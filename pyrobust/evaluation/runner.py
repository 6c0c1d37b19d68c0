"""Run the attacks over the samples, micro-batch by micro-batch, and hand the verified rows to a report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, check_bounds, check_labels, norm_name
from pyrobust.evaluation import diagnostics
from pyrobust.evaluation.attacks import Attacks, Budgets, Task, budgets_by_norm, plan
from pyrobust.evaluation.batches import micro_batches
from pyrobust.evaluation.environment import describe, preserved
from pyrobust.evaluation.examples import Examples, choose_examples, collect_examples
from pyrobust.evaluation.micro import Worker, seconds_of
from pyrobust.evaluation.results import Report, assemble
from pyrobust.evaluation.store import Store, complete
from pyrobust.evaluation.subject import (
    DataLike,
    Model,
    Samples,
    device_of,
    gather,
    hash_model,
    hash_tensors,
    model_name,
)

CLEAN = "clean predictions"


@dataclass(frozen=True)
class Progress:
    """How far a run is. One unit of work is one sample under one attack (at one budget).

    Attributes:
        title: what is running now.
        done: units finished, those of an earlier run included.
        resumed: of these, units that an earlier run had finished.
        total: units in all.
    """

    title: str
    done: int
    resumed: int
    total: int


def evaluate(
    model: Model,
    data: DataLike,
    *,
    norms: Norm | Sequence[Norm] = ("linf", "l2", "l1", "l0"),
    attacks: Attacks | None = None,
    steps: int | None = None,
    eps: Budgets | None = None,
    samples: int | None = None,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    seed: int = 0,
    bounds: Bounds = (0.0, 1.0),
    targets: Tensor | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    name: str | None = None,
) -> Report:
    """Attack every sample, verify every adversarial example, and report the model's robustness.

    Each point that an attack returns is predicted again, checked against the box and its budget, and measured in
    float64; only what passes counts. The model is evaluated as it is given: a training mode is warned of, not
    changed. Its buffers and training flags, and the global random state, are left as found.

    Args:
        model: callable from inputs (N, …) to logits (N, K), K ≥ 2. If it is a module, it must be on ``device``.
        data: name or path of a data set, (inputs, labels), a Dataset, or a DataLoader in fixed order.
        norms: one or several of "linf", "l2", "l1", "l0" (or inf, 2, 1, 0).
        attacks: names in `pyrobust.attacks`, ``"package.module:function"``, names of peers' attacks such as
            ``"adv_lib:ddn"`` (see `pyrobust.adapters`), or functions; one, several, or a mapping from norm to these. Default:
            the package's minimum-norm attack for each norm. An attack whose signature has ``eps`` is a budget attack,
            and is run at every ``eps``.
        steps: for every attack that takes it; default: the attack's own.
        eps: ascending budgets, a list where one norm is evaluated, else a mapping from norm to list. Budget attacks
            need it; the report's table uses it as its thresholds (default: five round values that suit the results).
        samples: evaluate the first so many; default: all.
        batch_size: samples a micro-batch. Together with the sample index it fixes which samples share a batch.
        device: default: where the model is.
        seed: of all randomness in attacks.
        bounds: the box (low, high) of valid inputs.
        targets: (N,) int64; where given, attacks are targeted at these classes, each unlike the sample's label.
        out: folder of the run; default: nothing is written until `Report.save`.
        resume: go on with the run in ``out``, whose settings, model, data and environment must be the same. The
            results are the same bits as without the interruption.
        progress: called after each micro-batch.
        name: what the report calls the model.

    Returns:
        A `Report`, already saved to ``out`` if that was given.

    Raises:
        ValueError, TypeError: an argument is not as above, or does not apply to any chosen attack.
        RunError: ``out`` cannot be used as asked.
        AttackError: an attack raised, or returned something that is not a batch of points.
    """
    bounds = check_bounds(bounds)
    chosen_norms = _norms(norms)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if resume and out is None:
        raise ValueError("resume: needs out, the folder of the run")
    subject = gather(data, samples, bounds)
    if targets is not None:
        targets = _targets(targets, subject)
    budgets = budgets_by_norm(chosen_norms, eps)
    tasks = plan(chosen_norms, attacks, budgets, steps, targets is not None)
    where = device_of(model, device)
    manifest: dict[str, Any] = {
        "settings": {
            "model_sha256": hash_model(model),
            "data_sha256": hash_tensors([("inputs", subject.inputs), ("labels", subject.labels)]),
            "targets_sha256": None if targets is None else hash_tensors([("targets", targets)]),
            "tasks": [task.record() for task in tasks],
            "eps": {norm: list(values) for norm, values in budgets.items()},
            "steps": steps,
            "samples": len(subject.labels),
            "batch_size": batch_size,
            "seed": seed,
            "bounds": list(bounds),
        },
        "environment": describe(where),
        "model": name or model_name(model),
        "data": subject.name,
        "shape": list(subject.inputs.shape[1:]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
    }
    store = None if out is None else Store.open(out, manifest, resume)
    worker = Worker(model, subject, targets, where, bounds, seed, steps, size=batch_size)
    with preserved(model):
        warnings = worker.first_look()
        parts = _Loop(worker, store, tasks, batch_size, progress).run()
    clean, attacked = parts[0], parts[1:]
    seconds = [sum(seconds_of(rows) for rows in task_rows) for task_rows in attacked]
    tables = [pa.concat_tables(rows) for rows in attacked]
    report = Report(
        manifest=complete(manifest) if store is None else store.manifest,
        results=assemble(tasks, pa.concat_tables(clean), tables),
        warnings=[*warnings, *diagnostics.gradient_warnings(pa.concat_tables(clean))],
        seconds=seconds,
        examples=_examples(subject, worker, tasks, tables),
    )
    if out is not None:
        report.save(out)
    return report


class _Loop:
    """Goes through clean predictions and tasks in order; what an earlier run finished is read instead of computed."""

    def __init__(
        self,
        worker: Worker,
        store: Store | None,
        tasks: list[Task],
        batch_size: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.worker, self.store, self.tasks, self.progress = worker, store, tasks, progress
        self.batches = micro_batches(len(worker.samples.labels), batch_size)
        self.done = self.resumed = 0

    def run(self) -> list[list[pa.Table]]:
        """Tables by [task][micro-batch]; task 0 is the clean predictions."""
        clean = self._task(0, CLEAN, self.worker.clean)
        self.worker.keep = choose_examples(pa.concat_tables(clean))
        attacked = [
            self._task(number, task.title, lambda ids, task=task: self.worker.attack(task, ids))  # type: ignore[misc]
            for number, task in enumerate(self.tasks, start=1)
        ]
        return [clean, *attacked]

    def _task(self, number: int, title: str, compute: Callable[[range], pa.Table]) -> list[pa.Table]:
        tables = []
        self._tell(title)
        for batch, ids in enumerate(self.batches):
            rows = None if self.store is None else self.store.read(number, batch)
            if rows is None:
                rows = compute(ids)
                if self.store is not None:
                    self.store.write(number, batch, rows)
            else:
                # A batch size lowered for lack of memory stays lowered, as it would have without the interruption.
                self.worker.size = min(self.worker.size, pc.min(rows["batch_size"]).as_py())
                self.resumed += len(ids)
            self.done += len(ids)
            tables.append(rows)
            self._tell(title)
        return tables

    def _tell(self, title: str) -> None:
        if self.progress is not None:
            total = len(self.worker.samples.labels) * (1 + len(self.tasks))
            self.progress(Progress(title, self.done, self.resumed, total))


def _norms(norms: Norm | Sequence[Norm]) -> list[str]:
    given = [norms] if isinstance(norms, (str, int, float)) else list(norms)
    names = [norm_name(n) for n in given]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"norms: expected one or several different norms, got {given!r}")
    return names


def _targets(targets: Tensor, subject: Samples) -> Tensor:
    targets = torch.as_tensor(targets).cpu()[: len(subject.labels)]
    check_labels(targets, subject.inputs)
    if bool((targets == subject.labels).any()):
        raise ValueError("targets: each must differ from the sample's label")
    return targets


def _examples(subject: Samples, worker: Worker, tasks: list[Task], tables: list[pa.Table]) -> Examples | None:
    if subject.inputs.ndim != 4 or subject.inputs.shape[1] not in (1, 3) or not worker.keep:
        return None
    return collect_examples(subject, worker.bounds, sorted(worker.keep), tasks, tables)

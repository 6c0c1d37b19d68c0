"""Run the attacks over the samples, micro-batch by micro-batch, and hand the verified rows to a report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, check_bounds, check_count, check_labels, check_seed, norm_name
from pyrobust._progress import Progress
from pyrobust.evaluation import diagnostics, masking
from pyrobust.evaluation.attacks import Attacks, Budgets, Task, budgets_by_norm, plan
from pyrobust.evaluation.environment import describe, preserved
from pyrobust.evaluation.examples import Examples, collect_examples
from pyrobust.evaluation.loop import Loop
from pyrobust.evaluation.micro import Worker, seconds_of
from pyrobust.evaluation.outcomes import assemble
from pyrobust.evaluation.results import Report
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


def evaluate(
    model: Model,
    data: DataLike,
    *,
    norms: Norm | Sequence[Norm] = ("linf", "l2", "l1", "l0"),
    attacks: Attacks | None = None,
    steps: int | None = None,
    budget: int | None = None,
    eps: Budgets | None = None,
    samples: int | None = None,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    seed: int = 0,
    bounds: Bounds = (0.0, 1.0),
    targets: Tensor | None = None,
    check_masking: int = 0,
    substitute: Model | None = None,
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
        budget: gradients a sample, for every attack that takes it (`minimum_norm`); default: the attack's own.
        eps: budgets, one or a list where one norm is evaluated, else a mapping from norm to these. Budget attacks need
            it; the report's table uses it as its thresholds (default: five round values that suit the results).
        samples: evaluate the first so many; default: all.
        batch_size: samples a micro-batch. Together with the sample index it fixes which samples share a batch.
        device: default: where the model is.
        seed: of all randomness in attacks.
        bounds: the box (low, high) of valid inputs.
        targets: (N,) int64; where given, attacks are targeted at these classes, each unlike the sample's label.
        check_masking: on the first so many samples, also run attacks without gradients, and warn where they find smaller
            perturbations than ``attacks``; 64 tell much. Costs at most about 7000 (one norm) or 16 000 (all four) predictions a
            sample.
        substitute: for ``check_masking``: another model of the same classes, on the same device; what fools it is tried too.
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
    check_count(batch_size=batch_size)
    check_seed(seed)
    if resume and out is None:
        raise ValueError("resume: needs out, the folder of the run")
    subject = gather(data, samples, bounds)
    if targets is not None:
        targets = _targets(targets, subject)
    budgets = budgets_by_norm(chosen_norms, eps)
    tasks = plan(chosen_norms, attacks, budgets, steps, targets is not None, budget)
    if isinstance(check_masking, bool) or check_masking < 0:
        raise ValueError(f"check_masking: expected a number of samples, 0 for none, got {check_masking!r}")
    if substitute is not None and not (callable(substitute) and check_masking):
        raise ValueError("substitute: expected a model, together with check_masking")
    searches = masking.searches(chosen_norms, substitute) if check_masking else []
    searched = min(check_masking, len(subject.labels))
    where = device_of(model, device)
    manifest: dict[str, Any] = {
        "settings": {
            "model_sha256": hash_model(model),
            "data_sha256": hash_tensors([("inputs", subject.inputs), ("labels", subject.labels)]),
            "targets_sha256": None if targets is None else hash_tensors([("targets", targets)]),
            "tasks": [task.record() for task in tasks],
            "eps": {norm: list(values) for norm, values in budgets.items()},
            "steps": steps,
            "budget": budget,
            "check_masking": {"samples": searched, "tasks": [task.record() for task in searches]},
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
    worker = Worker(model, subject, targets, where, bounds, seed, steps, budget, size=batch_size)
    with preserved(model):
        warnings = worker.first_look()
        clean, attacked = Loop(worker, store, tasks, searches, searched, batch_size, progress).run()
    tables = [pa.concat_tables(rows) for rows in attacked]
    found, checked = tables[: len(tasks)], tables[len(tasks) :]
    report = Report(
        manifest=complete(manifest) if store is None else store.manifest,
        results=assemble(tasks, pa.concat_tables(clean), found),
        warnings=[*warnings, *diagnostics.gradient_warnings(pa.concat_tables(clean))],
        seconds=[sum(map(seconds_of, rows)) for rows in attacked[: len(tasks)]],
        examples=_examples(subject, worker, tasks, found),
        checked=list(zip(searches, checked, strict=True)),
    )
    if out is not None:
        report.save(out)
    return report


def _norms(norms: Norm | Sequence[Norm]) -> list[str]:
    if not isinstance(norms, (str, int, float, Sequence)):
        raise ValueError(f"norms: expected one norm or several, got {norms!r}")
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

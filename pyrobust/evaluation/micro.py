"""The work on one micro-batch: clean predictions, or one attack and its verification. Rows of a table come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust._checks import NORMS, Bounds, check_labels
from pyrobust._counting import Spent, counted
from pyrobust.evaluation.attacks import Task
from pyrobust.evaluation.batches import padded
from pyrobust.evaluation.checks import predict, verify
from pyrobust.evaluation.diagnostics import model_warnings
from pyrobust.evaluation.environment import seeded
from pyrobust.evaluation.subject import Model, Samples

SECONDS = b"seconds"
SPENT = ("gradients", "forwards")
T = TypeVar("T")


class AttackError(RuntimeError):
    """An attack raised, or returned something that is not a batch of points; the message names it and the samples."""


@dataclass
class Worker:
    """Everything that a micro-batch needs besides its sample indices.

    Attributes:
        size: samples a batch now; halved for good when the device runs out of memory.
        keep: sample indices whose adversarial points are kept as example images.
    """

    model: Model
    samples: Samples
    targets: Tensor | None
    device: torch.device
    bounds: Bounds
    seed: int
    steps: int | None
    budget: int | None
    size: int
    keep: frozenset[int] = frozenset()

    def clean(self, ids: Sequence[int]) -> pa.Table:
        """Predictions of the samples as they are, their margins, and whether their input gradients are usable."""
        return self._in_chunks(ids, self._clean_chunk)

    def attack(self, task: Task, ids: Sequence[int]) -> pa.Table:
        """One attack on the samples, its points predicted, checked and measured again."""
        return self._in_chunks(ids, lambda chunk: self._attack_chunk(task, chunk))

    def first_look(self) -> list[str]:
        """Warnings about the model from its predictions of the first batch."""
        count = len(self.samples.labels)
        return self._shrinking(lambda: model_warnings(self.model, self._batch(range(min(self.size, count)))[1]))

    def _in_chunks(self, ids: Sequence[int], rows: Callable[[Sequence[int]], pa.Table]) -> pa.Table:
        return self._shrinking(lambda: _joined([rows(ids[i : i + self.size]) for i in range(0, len(ids), self.size)]))

    def _shrinking(self, compute: Callable[[], T]) -> T:
        """The result of ``compute``, started again with half the batch size whenever memory runs out."""
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
            # Outside the handler, where the traceback no longer holds the failed batch's tensors.
            self.size //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _batch(self, ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        index = padded(ids, self.size)
        return index, self.samples.inputs[index].to(self.device), self.samples.labels[index].to(self.device)

    def _clean_chunk(self, ids: Sequence[int]) -> pa.Table:
        index, inputs, labels = self._batch(ids)
        with seeded(self.device, self.seed, "clean", ids[0]):
            logits, predictions = predict(self.model, inputs)
            check_labels(labels, inputs, logits.shape[1])
            if self.targets is not None and int(self.targets[index].max()) >= logits.shape[1]:
                most = int(self.targets[index].max())
                raise ValueError(f"targets: expected classes below {logits.shape[1]}, as the model has, got {most}")
            loss_flat, margin_flat = _flat_gradients(self.model, inputs, labels)
        return _rows(
            len(ids),
            {
                "sample_id": np.asarray(ids),
                "label": labels,
                "clean_prediction": predictions,
                "correct": predictions == labels,
                "margin": _margins(logits, labels).double(),
                "no_loss_gradient": loss_flat,
                "no_margin_gradient": margin_flat,
                "batch_size": np.full(len(ids), self.size, dtype=np.int32),
            },
        )

    def _attack_chunk(self, task: Task, ids: Sequence[int]) -> pa.Table:
        index, inputs, labels = self._batch(ids)
        goals = labels if self.targets is None else self.targets[index].to(self.device)
        with seeded(self.device, self.seed, task.norm, task.attack.reference, task.eps, ids[0]):
            start = self._now()
            points, spent = self._points(task, index, inputs, goals)
            seconds = self._now() - start
        # Attacks put the random state back: a model that draws would judge by the numbers that its attacker has seen.
        with seeded(self.device, self.seed, task.norm, task.attack.reference, task.eps, ids[0], "verify"):
            _, predictions = predict(self.model, points)
        verdict = verify(
            inputs,
            points,
            goals,
            predictions,
            norm=task.norm,
            bounds=self.bounds,
            eps=task.eps,
            targeted=self.targets is not None,
        )
        kept = [points[i].cpu().float().numpy().tobytes() if s in self.keep else None for i, s in enumerate(ids)]
        columns: dict[str, Tensor | np.ndarray | pa.Array] = {
            "sample_id": np.asarray(ids),
            "prediction": predictions,
            "finite": verdict.finite,
            "in_bounds": verdict.in_bounds,
            "within_budget": verdict.within_budget,
            "adversarial": verdict.adversarial,
            **{name: verdict.norms[name] for name in NORMS},
            # Means over the batch, padding included: which of its samples asked for what cannot be seen.
            **{name: np.full(len(ids), getattr(spent, name) / len(inputs)) for name in SPENT},
            "batch_size": np.full(len(ids), self.size, dtype=np.int32),
            "point": pa.array(kept, type=pa.binary()),
        }
        return _rows(len(ids), columns, seconds)

    def _points(self, task: Task, index: Tensor, inputs: Tensor, goals: Tensor) -> tuple[Tensor, Spent]:
        where = f"attack {task.title}, samples {int(index[0])}–{int(index.max())}"
        try:
            # Copies, so that an attack that works in place cannot move the clean samples under the measurement.
            with counted(self.model) as (model, spent):
                points = task.attack.run(
                    model,
                    inputs.clone(),
                    goals.clone(),
                    norm=task.norm,
                    eps=task.eps,
                    steps=self.steps,
                    budget=self.budget,
                    targeted=True if self.targets is not None else None,
                    bounds=self.bounds,
                    seed=self.seed,
                    sample_ids=index.to(self.device),
                    grouping="value" if task.norm == "l0" and inputs.ndim != 4 else None,
                    eval_mode=False,  # the model as it is given
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise AttackError(f"{where}: {type(error).__name__}: {error}") from error
        if not isinstance(points, Tensor) or points.shape != inputs.shape or points.dtype != inputs.dtype:
            got = f"{points.dtype} {tuple(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
            raise AttackError(f"{where}: expected {inputs.dtype} {tuple(inputs.shape)} back, got {got}")
        return points.detach().to(self.device), spent

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other, (N,)."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.gather(1, labels[:, None]).squeeze(1) - others.amax(dim=1)


def _flat_gradients(model: Model, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the input gradient of the cross-entropy, and of the margin, is all zero or not finite; (N,) each."""
    leaf = inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        if not logits.requires_grad:
            everywhere = torch.ones(len(inputs), dtype=torch.bool)
            return everywhere, everywhere
        losses = F.cross_entropy(logits, labels, reduction="sum"), _margins(logits, labels).sum()
        grads = [torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)[0] for loss in losses]
    rows = [torch.zeros_like(inputs) if g is None else g for g in grads]
    flat = [((g == 0).flatten(1).all(dim=1) | ~g.isfinite().flatten(1).all(dim=1)).cpu() for g in rows]
    return flat[0], flat[1]


def _rows(count: int, columns: dict[str, Tensor | np.ndarray | pa.Array], seconds: float = 0.0) -> pa.Table:
    """A table of the first ``count`` entries of each column: what padding added is dropped here."""
    arrays = {
        name: column if isinstance(column, pa.Array) else pa.array(_numpy(column)[:count])
        for name, column in columns.items()
    }
    return pa.table(arrays).replace_schema_metadata({SECONDS: repr(seconds).encode()})


def _numpy(column: Tensor | np.ndarray) -> np.ndarray:
    return column.cpu().numpy() if isinstance(column, Tensor) else column


def _joined(tables: list[pa.Table]) -> pa.Table:
    total = sum(seconds_of(t) for t in tables)
    return pa.concat_tables(tables).combine_chunks().replace_schema_metadata({SECONDS: repr(total).encode()})


def seconds_of(rows: pa.Table) -> float:
    """Wall time of the attack that made these rows."""
    return float((rows.schema.metadata or {}).get(SECONDS, b"0"))

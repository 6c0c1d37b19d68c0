"""The attacks of tables 5.1–5.8 that pyrobust has, with the parameters of seed 003, §5.4, and how one is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.strength import BATCH, measure
from pyrobust import attacks
from pyrobust._counting import Spent, counted
from pyrobust.attacks._tuning import thesis_step_size
from pyrobust.evaluation.attacks import resolve
from pyrobust.evaluation.checks import predict, verify

NORMS = ("linf", "l2", "l1", "l0")
FRACTIONS = (1, 2, 5, 10, 25, 50, 100)  # step sizes tried by PGD and DAA: the threshold over each of these
SMOKE_FRACTIONS, SMOKE_STEPS = (1, 10), 5


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        label: its head there; "FAB-10" is FAB with ten restarts.
        attack: a name in `pyrobust.attacks`.
        variant: "default" for our own parameters, where others than the thesis's are meant.
        threshold: for an attack within a budget, the argument that takes each threshold in turn: "eps" or "pixels".
        heavy: more than 10,000 forward passes a sample over the thresholds; PDPGD-10 takes 5,000.
    """

    label: str
    attack: str
    norm: str
    options: Mapping[str, Any] = field(default_factory=dict)
    variant: str = "thesis"
    threshold: str = ""
    heavy: bool = False

    @property
    def family(self) -> str:
        """The head without the restarts, as in the tables of means."""
        return self.label.split("-", maxsplit=1)[0]


# B&B is not among our attacks, and DAA-1 has no counterpart: our particles are restarts of one sample. SparseFool's 20 iterations
# each hold a DeepFool of a few steps, and ours counts all steps: 100.
FIXED = (
    Column("DF", "deepfool", "linf", {"steps": 50, "overshoot": 0.02}),
    Column("DAA-50", "daa", "linf", {"steps": 200, "particles": 50}, threshold="eps", heavy=True),
    Column("DF", "deepfool", "l2", {"steps": 50, "overshoot": 0.02}),
    Column(
        "C&W",
        "carlini_wagner",
        "l2",
        {"steps": 10_000, "search_steps": 9, "step_size": 0.01, "const": 0.01, "abort_early": False},
        heavy=True,
    ),
    Column("DDN", "ddn", "l2", {"steps": 1000, "radius": 1.0, "gamma": 0.05}),
    Column("SparseFool", "sparsefool", "l1", {"steps": 100, "overshoot": 0.02, "control": 1.0}),
    Column(
        "EAD",
        "ead",
        "l1",
        {"steps": 1000, "search_steps": 9, "step_size": 0.01, "const": 0.01, "beta": 0.05, "abort_early": False},
        heavy=True,
    ),
    Column("JSMA", "jsma", "l0", {"theta": (1.0, -1.0), "gamma": 1.0}),
    Column("Pixel", "one_pixel", "l0", {"population": 400, "steps": 100}, threshold="pixels", heavy=True),
)


def columns(norm: str, restarts: Sequence[int]) -> Iterator[Column]:
    """All columns of a norm, in the order of the tables."""
    yield from (column for column in FIXED if column.norm == norm)
    if norm != "l0":
        pgd = ("slide", {"quantile": 0.99}) if norm == "l1" else ("pgd", {})
        for count in restarts:
            options = {**pgd[1], "steps": 100, "restarts": count, "random_start": True}
            yield Column(f"PGD-{count}", pgd[0], norm, options, threshold="eps", heavy=count > 1)
        for count in restarts:
            yield Column(f"FAB-{count}", "fab", norm, {"steps": 100, "restarts": count})
    own = "pdgd" if norm == "l2" else "pdpgd"
    for count in restarts:
        options = {"steps": 500, "restarts": count}
        yield Column(f"{own.upper()}-{count}", own, norm, {**options, "preset": "thesis"})
        yield Column(f"{own.upper()}-{count}", own, norm, options, variant="default")


@dataclass(frozen=True)
class Images:
    """What is attacked: test images, right or wrong, and others on which the thesis preset chooses its step size."""

    inputs: Tensor
    labels: Tensor
    correct: np.ndarray
    held_back: tuple[Tensor, Tensor]


def run(column: Column, model: nn.Module, images: Images, thresholds: Sequence[float], smoke: bool) -> dict[str, Any]:
    """What one attack does to the images, as plain data.

    Returns:
        "distances", one an image: 0 where it was misclassified already, inf where the attack failed. Of an attack within a
        budget "accuracies" instead, one a threshold: the lowest over the step sizes. "gradients" and "forwards" an image;
        "seconds"; "step_size" where one was chosen for the thesis preset.
    """
    spent, found = Spent(), {}
    options = {**column.options, **({"steps": SMOKE_STEPS} if smoke and "steps" in column.options else {})}
    if options.get("preset") == "thesis":
        function = getattr(attacks, column.attack)
        grouping = "pixel" if column.norm == "l0" else "value"
        found["step_size"] = options["step_size"] = thesis_step_size(
            function, model, images.held_back, norm=column.norm, grouping=grouping, steps=options["steps"]
        )
    began = time.perf_counter()
    if column.threshold:
        found["accuracies"] = [_robust(column, model, spent, images, options, at, smoke) for at in thresholds]
    else:
        found["distances"] = _distances(column, model, spent, images, options).tolist()
    count = len(images.labels)
    each = {"gradients": spent.gradients / count, "forwards": spent.forwards / count}
    return {**found, **each, "seconds": time.perf_counter() - began}


def _distances(
    column: Column, model: nn.Module, spent: Spent, images: Images, options: Mapping[str, Any]
) -> np.ndarray:
    points = _batches(column, model, spent, images, options)
    parts = [measure(model, x, y, adv, column.norm) for x, y, adv in points]
    return np.where(images.correct, np.concatenate(parts), 0.0)


def _robust(
    column: Column,
    model: nn.Module,
    spent: Spent,
    images: Images,
    options: Mapping[str, Any],
    at: float,
    smoke: bool,
) -> float:
    """Share of all images that are correct, and stay so within the threshold with the step size that leaves the fewest."""
    if column.threshold == "pixels":
        tried = [{**options, "pixels": round(at)}]
    else:
        fractions = SMOKE_FRACTIONS if smoke else FRACTIONS
        tried = [{**options, "eps": at, "step_size": at / fraction} for fraction in fractions]
    lowest = math.inf
    for one in tried:
        broken = []
        for x, y, adv in _batches(column, model, spent, images, one):
            _, predictions = predict(model, adv)
            verdict = verify(x, adv, y, predictions, norm=column.norm, bounds=(0.0, 1.0), eps=at)
            broken.append(verdict.adversarial.cpu().numpy())
        lowest = min(lowest, float(np.mean(images.correct & ~np.concatenate(broken))))
    return lowest


def _batches(
    column: Column, model: nn.Module, spent: Spent, images: Images, options: Mapping[str, Any]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(inputs, labels, adversarial points), a batch at a time; random numbers follow the number of the image."""
    attack, numbers = resolve(column.attack), torch.arange(len(images.labels), device=images.labels.device)
    for chosen in numbers.split(BATCH):
        x, y = images.inputs[chosen], images.labels[chosen]
        with counted(model, spent) as (watched, _):
            adv = attack.run(watched, x.clone(), y.clone(), norm=column.norm, sample_ids=chosen, **options)
        yield x, y, adv.detach()

"""``python -m bench training``: what a step of each objective costs beyond its own passes, and beside the same elsewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from bench import networks, report, training_peers, training_spectral
from bench.networks import Subject
from bench.timing import Contender, keep_memory, race
from bench.training_passes import Recorded, bare_step, counts
from bench.training_spectral import with_sgd
from pyrobust.models import roth_cnn
from pyrobust.training import (
    AdversarialTraining,
    Batch,
    CrossEntropy,
    InputGradient,
    JacobianFrobenius,
    LogitDistance,
    Objective,
    OperatorNorm,
    SpectralNorm,
    Trades,
    VirtualAdversarial,
)

BAR, GLOBAL_BAR = 1.10, 0.05
EPS, SIZE, STEPS = 8 / 255, 2 / 255, 7
COLUMNS = (
    "objective", "network", "forwards", "duals", "backwards", "second_backwards", "ms", "bare_ms", "over_bare", "over_bare_median",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """An objective, the same method in plain PyTorch where there is one to compare with, and whether it has a bar."""

    name: str
    make: Callable[[nn.Module], Objective]
    plain: training_peers.Loss | None = None
    barred: bool = False


def entries() -> list[Entry]:
    def beside(weight: float, term: Any) -> Callable[[nn.Module], Objective]:
        return lambda model: Objective(ce=CrossEntropy(), penalty=(weight, term(model)))

    return [
        Entry("cross-entropy", lambda _: Objective(ce=CrossEntropy())),
        Entry(
            f"adversarial, {STEPS} steps",
            lambda _: Objective(at=AdversarialTraining(EPS, "linf", STEPS, SIZE)),
            training_peers.adversarial(EPS, SIZE, STEPS),
            barred=True,
        ),
        Entry(
            f"trades, {STEPS} steps",
            beside(6.0, lambda _: Trades(EPS, "linf", STEPS, SIZE)),
            training_peers.trades(EPS, SIZE, STEPS, 6.0),
            barred=True,
        ),
        Entry(
            "vat, 1 step",
            beside(1.0, lambda _: VirtualAdversarial(0.5, steps=1)),
            training_peers.vat(0.5, 1, 0.01),
            barred=True,
        ),
        Entry(
            "d.d. SNR, 3 steps",
            beside(0.1, lambda _: OperatorNorm(steps=3, eps=0.1)),
            training_peers.spectral(0.1, 3, 0.1),
            barred=True,
        ),
        Entry("d.d. SNR by the value, 3 steps", beside(0.1, lambda _: OperatorNorm(steps=3))),
        Entry(
            "d.d. SNR, 1 step, warm start", beside(0.1, lambda _: OperatorNorm(steps=1, eps=0.1, warm_start=(4096, 10)))
        ),
        Entry(f"logit distance, {STEPS} steps", beside(1.0, lambda _: LogitDistance(0.5, steps=STEPS))),
        Entry("input gradient", beside(1.0, lambda _: InputGradient())),
        Entry("Jacobian, 1 projection", beside(0.01, lambda _: JacobianFrobenius(1))),
        Entry("global SNR", beside(0.01, SpectralNorm)),
    ]


def step_of(model: nn.Module, objective: Objective, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    """A training step but for the optimiser's: fresh batch, prepare, loss, backward pass, gradients dropped."""
    ids = torch.arange(len(inputs), device=inputs.device)

    def run() -> None:
        batch = Batch(inputs.detach(), labels, ids)
        objective.prepare(model, batch)
        loss, _ = objective(model, batch)
        if isinstance(model, Recorded):
            with model.last_backward():
                loss.backward()
        else:
            loss.backward()
        model.zero_grad()

    return run


def plain_step(model: nn.Module, loss: training_peers.Loss, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    def run() -> None:
        loss(model, inputs, labels).backward()
        model.zero_grad()

    return run


def measure(entry: Entry, subject: Subject, device: torch.device, rounds: int, sample_s: float) -> list[report.Row]:
    """Ours, its bare loop and the plain one in turn."""
    model = trainable(subject.model)
    inputs, labels = subject.inputs, subject.labels
    recorded = Recorded(model).train()
    step_of(recorded, entry.make(model).to(device), inputs, labels)()
    ours = step_of(model, entry.make(model).to(device), inputs, labels)

    def run() -> None:  # the bare loop leaves the model in the mode of its last pass
        model.train()
        ours()

    contenders = [
        Contender("ours", [run], budget=math.inf),
        Contender("bare", [bare_step(model, inputs, recorded.passes)], budget=math.inf),
    ]
    if entry.plain is not None:
        contenders.append(Contender("plain", [plain_step(model, entry.plain, inputs, labels)], budget=math.inf))
    times = race(contenders, device, rounds=rounds, sample_s=sample_s)
    own, bare = times["ours"], times["bare"]
    row: report.Row = {"objective": entry.name, "network": subject.name, "peer": "", **counts(recorded.passes)}
    row |= {
        "times": own.to_json(),
        "bare_times": bare.to_json(),
        "ms": own.minimum * 1e3,
        "bare_ms": bare.minimum * 1e3,
    }
    row |= {
        "over_bare": own.minimum / bare.minimum,
        "over_bare_median": own.median / bare.median,
        "barred": entry.barred,
    }
    if entry.plain is None:
        return [row]
    plain = times["plain"]
    ratio = plain.minimum / own.minimum
    return [row, {"objective": entry.name, "network": subject.name, "peer": "plain PyTorch", "times": plain.to_json(),
                  "ms": plain.minimum * 1e3, "over_ours": ratio}]  # fmt: skip


def against_art(subject: Subject, device: torch.device, rounds: int, sample_s: float) -> list[report.Row]:
    """A whole step of adversarial training, optimiser included, ours and ART's in turn."""
    inputs, labels = subject.inputs, subject.labels
    model, term = trainable(subject.model), AdversarialTraining(EPS, "linf", STEPS, SIZE)
    ids = torch.arange(len(inputs), device=device)
    contenders = [
        Contender("ours", [with_sgd(model, lambda: term(model, Batch(inputs, labels, ids)))], budget=math.inf)
    ]
    rows: list[report.Row] = []
    makers = training_peers.art_trainers(lambda: trainable(subject.model), inputs, labels, EPS, SIZE, STEPS)
    for name, make in makers.items():
        rows.append({"objective": f"adversarial, {STEPS} steps, and SGD", "network": subject.name, "peer": name})
        try:
            contenders.append(Contender(name, [make()], optional=True, budget=math.inf))
        except Exception as error:  # a peer may fail in any way; the benchmark goes on without it
            rows[-1]["note"] = f"{type(error).__name__}: {error}"
    times = race(contenders, device, rounds=rounds, sample_s=sample_s)
    for row in rows:
        if row["peer"] in times:
            peer = times[row["peer"]]
            row |= {
                "times": peer.to_json(),
                "ms": peer.minimum * 1e3,
                "over_ours": peer.minimum / times["ours"].minimum,
            }
            row["note"] = peer.error
    return rows


def trainable(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(True).train()


def run(device: torch.device, *, smoke: bool, rounds: int = 0, only: str = "") -> dict[str, Any]:
    """Time, print, and return what goes into the JSON.

    Args:
        rounds: of ours, its bare loop and its peers, in turn (default 5).
        only: objectives whose name contains this; the comparisons with ART and on WRN-28-10 go with "adversarial" and
            "global".
    """
    rounds = rounds or (2 if smoke else 5)
    kept = keep_memory()
    batch, sample_s = (8, 0.02) if smoke else (64, 0.2)
    cifar = networks.cifar(device, batch, smoke)
    deep = Subject("7-layer CNN with batch norm", roth_cnn().to(device), cifar.inputs, cifar.labels, "initial weights")
    rows: list[report.Row] = []
    for entry in entries():
        if only in entry.name:
            rows += measure(entry, cifar, device, rounds, sample_s)
            if entry.barred and not smoke:
                rows += measure(entry, deep, device, rounds, sample_s)
    if only in "adversarial":
        rows += against_art(cifar, device, rounds, sample_s)
    ours, theirs = ([row for row in rows if bool(row["peer"]) is peer] for peer in (False, True))
    title = f"Wall time of a step over the same passes alone, batch {batch} ({cifar.note})"
    report.table(title, ours, COLUMNS)
    report.table("The same elsewhere", theirs, ("objective", "network", "peer", "ms", "over_ours"))
    report.notes(theirs, "peer")
    bars = [
        report.bar(f"{row['objective']} on {row['network']}: wall over passes", BAR, row["over_bare"])
        for row in ours
        if row["barred"]
    ]
    norms: list[report.Row] = []
    if only in "global SNR":
        norms = training_spectral.run(
            device, smoke, 2 if smoke else (128 if device.type == "cuda" else 32), min(rounds, 5)
        )
        columns = ("step", "network", "batch", "ms", "over_standard", "over_standard_median")
        report.table("Spectral norms of all weights in a step with SGD", norms, columns)
        (own,) = (row["over_standard"] for row in norms if row["step"] == "SpectralNorm alone")
        bars.append(report.bar(f"SpectralNorm over a standard step on {norms[0]['network']}", GLOBAL_BAR, own))
    report.show_bars(bars)
    networks_used = [subject.to_json() for subject in ((cifar,) if smoke else (cifar, deep))]
    try:
        art = metadata.version("adversarial-robustness-toolbox")
    except metadata.PackageNotFoundError:
        art = "not installed"
    return {
        "networks": networks_used,
        "art": art,
        "memory_kept": kept,
        "rows": rows,
        "spectral_norms": norms,
        "bars": bars,
    }

"""``python -m bench attacks``: wall time over the model's own gradients, and strength beside adv-lib."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import networks, peers, report
from bench.networks import Subject
from bench.report import Row
from bench.timing import Contender, race
from pyrobust import attacks

Attack = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
NORMS = {"linf": math.inf, "l2": 2.0, "l1": 1.0, "l0": 0.0}
WALL_BARS = {"pdpgd linf": 1.10, "pdpgd l1": 1.08, "pdpgd l0": 1.08, "pdgd l2": 1.08}
NORM_BARS = {"pdpgd linf": 1.0, "pdpgd l2": 1.0, "pdpgd l1": 1.0, "pdgd l2": 1.0, "pdpgd l0": 0.5}


@dataclass(frozen=True)
class Entry:
    """An attack of ours or of a peer, as attack(model, inputs, labels, steps). ``loss``: what its gradients are of."""

    name: str
    norm: str
    attack: Attack | None
    loss: str = "hinge"
    missing: str = ""

    @property
    def peer(self) -> bool:
        return "adv-lib" in self.name


def entries() -> list[Entry]:
    """Ours first, then the same attacks of adv-lib, or rows that say why not."""

    def ours(norm: str) -> Attack:
        return lambda m, x, y, steps: attacks.pdpgd(m, x, y, norm=norm, steps=steps)

    def theirs(norm: float) -> Attack:
        return lambda m, x, y, steps: library.pdpgd(m, x, y, norm, num_steps=steps)  # type: ignore[union-attr]

    library, reason = peers.adv_lib()
    found = [Entry(f"pdpgd {norm}", norm, ours(norm)) for norm in NORMS]
    found.append(Entry("pdgd l2", "l2", lambda m, x, y, steps: attacks.pdgd(m, x, y, steps=steps)))
    for norm, p in NORMS.items():
        found.append(Entry(f"adv-lib pdpgd {norm}", norm, theirs(p) if library else None, "softplus", reason))
    pdgd = (lambda m, x, y, steps: library.pdgd(m, x, y, num_steps=steps)) if library else None
    found.append(Entry("adv-lib pdgd l2", "l2", pdgd, "softplus", reason))
    return found


def budget_entries() -> list[Entry]:
    eps = 8 / 255
    return [
        Entry("pgd linf", "linf", lambda m, x, y, steps: attacks.pgd(m, x, y, eps=eps, steps=steps), "ce"),
        Entry("fgm linf", "linf", lambda m, x, y, steps: attacks.fgm(m, x, y, eps=eps), "ce"),
    ]


class Counted(nn.Module):
    """Counts the forward and backward passes of a model, in whole batches of its caller."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, grad: Tensor) -> None:
        self.backwards += 1


def bare_loop(subject: Subject, loss: str, forwards: int, backwards: int) -> Callable[[], None]:
    """An attack's passes alone: ``backwards`` forward + backward passes of its loss, then the other forwards."""
    model, inputs, labels = subject.model, subject.inputs, subject.labels
    column = labels.unsqueeze(1)

    def loss_of(logits: Tensor) -> Tensor:
        if loss == "ce":
            return F.cross_entropy(logits, labels, reduction="sum")
        margin = logits.gather(1, column).squeeze(1) - logits.scatter(1, column, -math.inf).amax(1)
        return (F.softplus(margin) if loss == "softplus" else margin.clamp(min=0)).sum()

    def run() -> None:
        for _ in range(backwards):
            point = inputs.detach().requires_grad_()
            torch.autograd.grad(loss_of(model(point)), point)
        with torch.no_grad():
            for _ in range(forwards - backwards):
                model(inputs)

    return run


def wall(subject: Subject, steps: int, rounds: int, device: torch.device, peer_rounds: int = 2) -> list[Row]:
    """Attacks and bare loops of the same passes, all in turn; the ratio of their minima."""
    contenders: list[Contender] = []
    rows: list[Row] = []
    for entry in [*entries(), *budget_entries()]:
        row: Row = {
            "attack": entry.name,
            "network": subject.name,
            "steps": 1 if entry.name.startswith("fgm") else steps,
        }
        rows.append(row)
        if entry.attack is None:
            row["note"] = entry.missing
            continue
        counted = Counted(subject.model)
        function = entry.attack
        began = time.perf_counter()
        function(counted, subject.inputs.clone(), subject.labels, steps)  # counts, and warms up
        once = time.perf_counter() - began
        row |= {"forwards": counted.forwards, "backwards": counted.backwards}
        row["bare"] = f"bare {entry.loss} {counted.forwards}+{counted.backwards}"
        if all(contender.name != row["bare"] for contender in contenders):
            loop = bare_loop(subject, entry.loss, counted.forwards, counted.backwards)
            contenders.append(Contender(row["bare"], [loop], budget=math.inf))
        call = lambda f=function: f(subject.model, subject.inputs, subject.labels, steps)  # noqa: E731
        limit = peer_rounds * once if entry.peer else math.inf
        contenders.append(Contender(entry.name, [call], optional=entry.peer, budget=limit))
    # A sample of a short attack repeats it, until it lasts long enough for the clock.
    ran = [row for row in rows if "bare" in row]
    times = race(contenders, device, rounds=rounds, sample_s=0.2)
    for row in ran:
        own, bare = times[row["attack"]], times[row["bare"]]
        row |= {"times": own.to_json(), "bare_times": bare.to_json(), "note": own.error}
        row["ms_a_step"] = own.minimum / row["steps"] * 1e3
        row["bare_ms_a_step"] = bare.minimum / row["steps"] * 1e3
        row["over_bare"] = own.minimum / bare.minimum
        row["over_bare_median"] = own.median / bare.median
    return rows


def minimum_norms(subject: Subject, steps: int, device: torch.device) -> list[Row]:
    """One run of each attack on the same images; its examples are predicted again, checked and measured here."""
    rows: list[Row] = []
    distances: dict[str, Tensor] = {}
    for entry in entries():
        row: Row = {"attack": entry.name, "network": subject.name, "steps": steps}
        rows.append(row)
        if entry.attack is None:
            row["note"] = entry.missing
            continue
        counted = Counted(subject.model)
        began = time.perf_counter()
        try:
            adv = entry.attack(counted, subject.inputs.clone(), subject.labels, steps).detach()
        except Exception as error:
            if not entry.peer:
                raise
            row["note"] = f"{type(error).__name__}: {error}"
            continue
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        row |= {"wall_s": time.perf_counter() - began, "forwards": counted.forwards, "backwards": counted.backwards}
        distance = distances[entry.name] = measure(subject, adv, entry.norm)
        found = distance[distance.isfinite()]
        row |= {"success": len(found) / len(distance), "mean": float(found.mean()), "median": float(distance.median())}
    for row in rows:
        peer = distances.get(f"adv-lib {row['attack']}")
        if peer is not None:
            own = distances[row["attack"]]
            both = own.isfinite() & peer.isfinite()
            row["over_adv_lib"] = float(own[both].mean() / peer[both].mean())
    return rows


@torch.no_grad()
def measure(subject: Subject, adv: Tensor, norm: str) -> Tensor:
    """Each perturbation's norm in float64; inf where the example is not adversarial, not finite or outside [0, 1]."""
    valid = ((adv >= 0) & (adv <= 1)).flatten(1).all(1) & (subject.model(adv).argmax(1) != subject.labels)
    moved = adv.double() - subject.inputs.double()
    if norm == "l0":
        size = (moved != 0).any(1).flatten(1).sum(1).double()
    else:
        size = torch.linalg.vector_norm(moved.flatten(1), NORMS[norm], dim=1)
    return torch.where(valid, size, math.inf).cpu()


def run(
    device: torch.device,
    *,
    smoke: bool,
    steps: int = 0,
    strength_steps: int = 0,
    strength: bool = True,
    rounds: int = 0,
) -> dict[str, Any]:
    """Time, print, and return what goes into the JSON."""
    batch = 8 if smoke else 128
    steps = steps or (2 if smoke else 100)
    timed = networks.cifar(device, batch, smoke)
    walls = wall(timed, steps, rounds or (2 if smoke else 7), device)
    columns = (
        "attack",
        "steps",
        "forwards",
        "backwards",
        "ms_a_step",
        "bare_ms_a_step",
        "over_bare",
        "over_bare_median",
    )
    report.table(f"Wall time over the gradients alone: {timed.name}, batch {batch} ({timed.note})", walls, columns)
    report.notes(walls, "attack")
    subjects, strengths = [timed], []
    if strength:
        subjects = [networks.scikit_digits(device, batch, smoke)] + ([timed] if timed.name == "cifar4" else [])
        for subject in subjects:
            strengths += _strength(subject, strength_steps or (20 if smoke else 500), device)
    bars = _bars(walls, strengths)
    report.show_bars(bars)
    return {
        "networks": [s.to_json() for s in {s.name: s for s in [timed, *subjects]}.values()],
        "wall": walls,
        "strength": strengths,
        "bars": bars,
    }


def _strength(subject: Subject, steps: int, device: torch.device) -> list[Row]:
    rows = minimum_norms(subject, steps, device)
    columns = ("attack", "success", "mean", "median", "over_adv_lib", "wall_s", "forwards", "backwards")
    report.table(
        f"Minimum norms at {steps} steps: {subject.name}, {len(subject.inputs)} images ({subject.note})", rows, columns
    )
    report.notes(rows, "attack")
    return rows


def _bars(walls: list[Row], strengths: list[Row]) -> list[Row]:
    ratio = {row["attack"]: row.get("over_bare") for row in walls}
    found = [report.bar(f"{name}: wall over gradients", limit, ratio.get(name)) for name, limit in WALL_BARS.items()]
    for row in strengths:
        if row["attack"] in NORM_BARS:
            limit = NORM_BARS[row["attack"]]
            found.append(
                report.bar(
                    f"{row['attack']} on {row['network']}: mean norm over adv-lib's", limit, row.get("over_adv_lib")
                )
            )
    return found

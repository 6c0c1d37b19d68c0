"""``python -m bench suite``: wall time of every attack over its own passes through the model, and beside its peers."""

from __future__ import annotations

import math
import time
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench import networks, report
from bench.networks import Subject
from bench.passes import Recorded, bare_loop
from bench.suite_roster import EPS, FIRST_ORDER, OTHERS, Entry, Options
from bench.timing import Contender, keep_memory, race
from pyrobust import attacks
from pyrobust.adapters import PEERS
from pyrobust.evaluation.attacks import Attack, resolve

BAR = 1.10
PEER_S = 1.0  # of a peer: the seconds after which it gets no further round
SLOW_S = 5.0  # a peer that takes longer is timed by its counted run alone
CLASSES = 10
COLUMNS = ("attack", "steps", "forwards", "gradients", "ms", "bare_ms", "over_bare", "over_bare_median")
PEER_COLUMNS = ("attack", "peer", "forwards", "gradients", "ms", "over_ours")


def run(device: torch.device, *, smoke: bool, steps: int = 0, rounds: int = 0, only: str = "") -> dict[str, Any]:
    """Time, print, and return what goes into the JSON.

    Args:
        steps: of every attack that takes a number of them (default 10); single-step attacks take one.
        rounds: of ours and of its bare loop, in turn (default 5).
        only: attacks whose name contains this.
    """
    batch, steps, rounds = 8 if smoke else 128, steps or (2 if smoke else 10), rounds or (2 if smoke else 5)
    kept = keep_memory()
    subject = networks.cifar(device, batch, smoke)
    rows: list[report.Row] = []
    for entry in (*FIRST_ORDER, *OTHERS):
        if only in entry.name:
            began = time.monotonic()
            rows += _rows(entry, subject, device, steps, rounds, 0.02 if smoke else 0.2, with_peers=not smoke)
            print(f"  {entry.name}: {time.monotonic() - began:.0f} s", flush=True)  # the whole takes half an hour
    ours = [row for row in rows if not row["peer"]]
    where = f"{subject.name}, batch {batch} ({subject.note})"
    report.table(f"Wall time over the same passes alone: {where}", ours, COLUMNS)
    report.notes(ours, "attack")
    theirs = [row for row in rows if row["peer"]]
    report.table(f"The same attack elsewhere, at as many steps: {where}", theirs, PEER_COLUMNS)
    report.notes(theirs, "peer")
    bars = [
        report.bar(f"{row['attack']}: wall over passes", BAR, row["over_bare"]) for row in ours if row["first_order"]
    ]
    report.show_bars(bars)
    return {"networks": [subject.to_json()], "steps": steps, "memory_kept": kept, "rows": rows, "bars": bars}


def _rows(
    entry: Entry, subject: Subject, device: torch.device, steps: int, rounds: int, sample_s: float, with_peers: bool
) -> list[report.Row]:
    """Ours, its bare loop and the peers, a sample each a round."""
    own = resolve(getattr(attacks, entry.attack))
    call = partial(_call, own, subject, entry, entry.options, steps)
    counted = Recorded(subject.model).eval()
    call(counted)
    row = _row(entry, "", counted, len(subject.labels)) | {"first_order": entry.first_order}
    row["steps"] = steps if own.takes("steps") else None
    contenders = [
        Contender("ours", [partial(call, subject.model)], budget=math.inf),
        Contender("bare", [bare_loop(subject, counted.passes)], budget=math.inf),
    ]
    rows = [row]
    for name, options in entry.peers.items() if with_peers else ():
        row, contender = _peer(name, options, subject, entry, steps)
        rows.append(row)
        if contender is not None:
            contenders.append(contender)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = race(contenders, device, rounds=rounds, sample_s=sample_s)
    ours, bare = times["ours"], times["bare"]
    rows[0] |= {"times": ours.to_json(), "bare_times": bare.to_json(), "ms": ours.minimum * 1e3}
    rows[0] |= {"bare_ms": bare.minimum * 1e3, "over_bare": ours.minimum / bare.minimum}
    rows[0]["over_bare_median"] = ours.median / bare.median
    for row in rows[1:]:
        if row["peer"] in times:
            peer = times[row["peer"]]
            row |= {"times": peer.to_json(), "ms": peer.minimum * 1e3, "note": peer.error}
        if "ms" in row:
            row["over_ours"] = row["ms"] / rows[0]["ms"]
    return rows


def _row(entry: Entry, peer: str, counted: Recorded, samples: int) -> report.Row:
    spent = {"forwards": counted.forwards / samples, "gradients": counted.gradients / samples}
    return {"attack": entry.name, "norm": entry.norm, "peer": peer, **spent}


def _peer(
    name: str, options: Options, subject: Subject, entry: Entry, steps: int
) -> tuple[report.Row, Contender | None]:
    """The peer's row, and its contender; None where it cannot run, and the row says why."""
    library, _, attack = name.partition(":")
    counted = Recorded(subject.model).eval()
    try:
        call = partial(_call, resolve(PEERS[library](attack, **options)), subject, entry, {}, steps)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(counted)
        once = time.perf_counter() - began
    except Exception as error:  # a peer may fail in any way; the benchmark goes on without it
        told = (str(error).splitlines() or ["no message"])[0][:160]
        return {"attack": entry.name, "norm": entry.norm, "peer": name, "note": f"{type(error).__name__}: {told}"}, None
    row = _row(entry, name, counted, len(subject.labels))
    if once > SLOW_S:
        return row | {"ms": once * 1e3, "note": "slow: one run"}, None
    return row, Contender(name, [partial(call, subject.model)], optional=True, budget=max(PEER_S, 0.5 * once))


def _call(attack: Attack, subject: Subject, entry: Entry, options: Options, steps: int, model: nn.Module) -> Tensor:
    labels = (subject.labels + 1) % CLASSES if entry.targeted else subject.labels
    offered = {
        "norm": entry.norm,
        "targeted": entry.targeted,
        "eps": EPS.get(entry.norm),
        "steps": steps,
        "budget": 3 * steps,
        "seed": 0,
        **options,
    }
    if entry.attack == "feature_adversary":  # the images that are to be imitated, and where: before the last layer
        offered |= {"guides": subject.inputs.roll(1, 0), "layer": subject.model[-2]}  # type: ignore[index]
    if entry.attack == "transfer":  # the passes of the substitute count like those of the model
        offered |= {"substitute": model, "attack": partial(attacks.bim, eps=EPS["linf"], steps=steps)}
    return attack.run(model, subject.inputs.clone(), labels, **offered)

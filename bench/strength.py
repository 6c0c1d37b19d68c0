"""``python -m bench strength``: the minimum norms of every attack, ours and the peers', side by side in one run."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench import report, roster, zoo
from bench.strength_bars import bars
from bench.strength_plots import draw
from pyrobust import attacks
from pyrobust._counting import Spent, counted
from pyrobust.adapters import PEERS
from pyrobust.data import load
from pyrobust.evaluation import metrics
from pyrobust.evaluation.attacks import Attack, resolve
from pyrobust.evaluation.checks import perturbation_norms, predict, verify

NORMS = ("linf", "l2", "l1", "l0", "l0-values")
COLUMNS = ("attack", "success", "mean", "median", "optimality", "gradients", "forwards", "seconds")
SMOKE_STEPS = 10
BATCH = 100


def run(
    device: torch.device,
    *,
    smoke: bool,
    half: str = "report",
    samples: int = 100,
    norms: Sequence[str] = NORMS,
    networks: Sequence[str] = (),
    only: str = "",
    heavy: bool = False,
    plots: Path | None = None,
) -> dict[str, Any]:
    """Train or load the networks, attack, print, and return what goes into the JSON.

    Args:
        half: "tune": test images of even number, to choose parameters on; "report": the others, to report.
        samples: images a network, the first of the half that it classifies correctly.
        norms: of `NORMS`; "l0" counts pixels, "l0-values" counts values (the same where images have one channel).
        networks: names, as "mnist linf-at"; default: all.
        only: attacks whose name contains this, beside ``minimum_norm``.
        heavy: run the heavy rows too.
        plots: folder of a PNG a norm and network; None: none.
    """
    recipes, note = zoo.recipes(smoke)
    chosen = [recipe for recipe in recipes if not networks or recipe.name in networks]
    if not chosen:
        raise ValueError(f"networks: expected some of {', '.join(r.name for r in recipes)}, got {', '.join(networks)}")
    rows: list[report.Row] = []
    described = []
    for recipe in chosen:
        data = load(recipe.data)
        model = zoo.network(recipe, data, device, smoke=smoke)
        inputs, labels = zoo.images(model, data, half, 4 if smoke else samples, device)
        clean = zoo.accuracy(model, *data.test)
        described.append({"network": recipe.name, "samples": len(labels), "clean_accuracy": clean, "note": note})
        for norm in norms:
            if norm == "l0-values" and (inputs.ndim < 4 or inputs.shape[1] == 1):
                continue
            title = f"{norm} on {recipe.name}: {len(labels)} images of the {half} half, clean accuracy {clean:.3f} {note}".rstrip()
            rows += _table(title, recipe.name, model, inputs, labels, norm, half, only, heavy, smoke, plots)
    found = bars(rows)
    report.show_bars(found)
    for row in rows:
        row.pop("distances", None)
    return {"half": half, "networks": described, "rows": rows, "bars": found}


def _table(
    title: str,
    network: str,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    norm: str,
    half: str,
    only: str,
    heavy: bool,
    smoke: bool,
    plots: Path | None,
) -> list[report.Row]:
    rows: list[report.Row] = []
    for entry in roster.rows("l0" if norm == "l0-values" else norm):
        row: report.Row = {
            "network": network,
            "norm": norm,
            "attack": entry.name,
            "peer": entry.peer,
            "pinned": not entry.heavy,
        }
        rows.append(row)
        if entry.heavy and (smoke or not heavy):
            row["note"] = "heavy: runs with --heavy"
        elif only not in entry.name and entry.attack != "minimum_norm":
            row["note"] = f"left out by --only {only}"
        else:
            row |= attack(entry, model, inputs, labels, norm, smoke)
    _rate(rows)
    pinned = [row for row in rows if row["pinned"]]
    title += f"; A* of {sum('distances' in row for row in pinned)} of {len(pinned)} pinned rows"
    report.table(title, [row for row in rows if "distances" in row], COLUMNS)
    report.notes(rows, "attack")
    sys.stdout.flush()  # the next table may take an hour
    if plots is not None:
        draw(plots / f"strength{'-tune' if half == 'tune' else ''}-{network.replace(' ', '-')}-{norm}.png", rows, title)
    return rows


def attack(entry: roster.Row, model: nn.Module, inputs: Tensor, labels: Tensor, norm: str, smoke: bool) -> report.Row:
    """Run one attack: its distances, what it spent, or a note why there are none."""
    try:
        spec, offered = _attack(entry)
    except ImportError as error:
        return {"note": f"missing: {error}"}
    offered |= {"norm": entry.norm, "seed": 0}
    if norm.startswith("l0") and spec.takes("grouping"):
        offered["grouping"] = "value" if norm == "l0-values" else "pixel"
    if smoke:
        offered["steps"] = SMOKE_STEPS
    distances, seconds, spent = [], 0.0, Spent()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
                began = time.perf_counter()
                with counted(model, spent) as (watched, _):
                    adv = spec.run(watched, x.clone(), y.clone(), **offered)
                if x.device.type == "cuda":
                    torch.cuda.synchronize(x.device)
                seconds += time.perf_counter() - began
                distances.append(measure(model, x, y, adv.detach(), norm))
    except Exception as error:
        if not entry.peer:
            raise
        return {"note": f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:160]}"}
    distance, count = np.concatenate(distances), len(labels)
    everyone = np.ones(count, dtype=bool)
    return {
        "distances": distance,
        "success": metrics.success_rate(everyone, distance),
        "mean": metrics.mean_distance(everyone, distance),
        "median": metrics.median_distance(everyone, distance),
        "gradients": spent.gradients / count,
        "forwards": spent.forwards / count,
        "seconds": seconds,
    }


def measure(model: nn.Module, inputs: Tensor, labels: Tensor, adv: Tensor, norm: str) -> np.ndarray:
    """Float64 norms; inf where the point, predicted again, is not adversarial, not finite or outside [0, 1]."""
    _, predictions = predict(model, adv)
    verdict = verify(inputs, adv, labels, predictions, norm="l0", bounds=(0.0, 1.0))
    # Rows without channels: the evaluation counts their values, not pixels.
    norms = (
        verdict.norms[norm] if norm in verdict.norms else perturbation_norms(inputs.flatten(1), adv.flatten(1))["l0"]
    )
    return norms.masked_fill(~verdict.adversarial, math.inf).numpy()


def _rate(rows: list[report.Row]) -> None:
    """Optimality of every row to the per-sample best of the pinned ones."""
    pinned = [row["distances"] for row in rows if row["pinned"] and "distances" in row]
    if not pinned:
        return
    best = np.minimum.reduce(pinned)
    for row in rows:
        if "distances" in row:
            row["optimality"] = metrics.optimality(row["distances"], best, 1.0)


def _attack(entry: roster.Row) -> tuple[Attack, dict[str, Any]]:
    """The attack, and the options that are still to be passed. ImportError: it is not here."""
    if entry.peer:
        library, _, name = entry.attack.partition(":")
        return resolve(PEERS[library](name, **entry.options)), {}
    if not hasattr(attacks, entry.attack):
        raise ImportError(f"pyrobust.attacks has no {entry.attack}")
    return resolve(entry.attack), dict(entry.options)

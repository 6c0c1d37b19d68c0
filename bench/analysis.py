"""``python -m bench analysis``: Jacobian spectra per second, and regularisation sweeps, beside the same elsewhere."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import analysis_peers, networks, report
from bench.networks import Subject
from bench.timing import Contender, keep_memory, race
from pyrobust.analysis import jacobian_spectrum, layer_outputs
from pyrobust.analysis.sweep import LAMBDAS, regularisation_sweep
from pyrobust.data import digits, load_npz
from pyrobust.data.loading import DATA_VARIABLE

LARGEST = 5
CLASSES = (3, 7)
SPECTRUM_COLUMNS = ("what", "network", "samples", "by", "per_s", "over_ours", "error")
SWEEP_COLUMNS = ("sweep", "data", "images", "lambdas", "by", "seconds", "over_ours", "excess")


def spectra(subject: Subject, device: torch.device, rounds: int, sample_s: float) -> list[report.Row]:
    """All singular values of the logits' Jacobians."""
    calls: dict[str, Callable[[], Tensor]] = {
        "pyrobust": lambda: jacobian_spectrum(subject.model, subject.inputs).values
    }
    for name, peer in analysis_peers.SPECTRA.items():
        calls[name] = partial(peer, subject.model, subject.inputs)
    return _spectrum_rows("all of the logits", subject, subject.inputs, calls, None, device, rounds, sample_s)


def largest(subject: Subject, layer: str, samples: int, device: torch.device, rounds: int) -> list[report.Row]:
    """The largest few singular values of a wide layer, where the peers need the whole Jacobian."""
    inputs, part = subject.inputs[:samples], layer_outputs(subject.model, layer)
    width = part(inputs[:1]).shape[1]
    calls: dict[str, Callable[[], Tensor]] = {
        "pyrobust": lambda: jacobian_spectrum(subject.model, inputs, layer, k=LARGEST).values,
        "pyrobust, all values": lambda: jacobian_spectrum(subject.model, inputs, layer).values,
    }
    for name in list(analysis_peers.SPECTRA)[:2]:
        calls[name] = partial(analysis_peers.SPECTRA[name], part, inputs)
    what = f"{LARGEST} largest of {width} features"
    return _spectrum_rows(what, subject, inputs, calls, layer, device, rounds, 0.0)


def _spectrum_rows(
    what: str, subject: Subject, inputs: Tensor, calls: dict[str, Callable[[], Tensor]], layer: str | None,
    device: torch.device, rounds: int, sample_s: float,
) -> list[report.Row]:  # fmt: skip
    """Ours and the peers in turn; ``error`` is the largest |σ̂ − σ| / σ₁, σ those of the network in float64."""
    contenders = [Contender(name, [call], optional=name != "pyrobust", budget=60.0) for name, call in calls.items()]
    times = race(contenders, device, rounds=rounds, sample_s=sample_s)
    wide = copy.deepcopy(subject.model).double()
    exact = jacobian_spectrum(wide, inputs.double(), layer, method="svd" if layer is None else "gram").values
    rows: list[report.Row] = []
    for name, call in calls.items():
        row: report.Row = {"what": what, "network": subject.name, "samples": len(inputs), "by": name}
        row |= {"times": times[name].to_json(), "note": times[name].error}
        if not times[name].error:
            row["per_s"] = len(inputs) / times[name].median
            row["over_ours"] = times[name].median / times["pyrobust"].median
            found = call().double().cpu()
            values = exact[:, : found.shape[1]] if layer is None else exact[:, :LARGEST]
            row["error"] = float(((found[:, : values.shape[1]] - values).abs() / exact[:, :1]).max())
        rows.append(row)
    return rows


def sweeps(smoke: bool, rounds: int, only: str) -> list[report.Row]:
    """One pair of classes over the range of λ; scikit-learn is timed once where it takes long."""
    from sklearn.exceptions import ConvergenceWarning

    folder = os.environ.get(DATA_VARIABLE)
    source = Path(folder) / "mnist.npz" if folder else None
    data = digits() if smoke or source is None or not source.is_file() else load_npz(source)
    assert data.train is not None
    inputs, labels = (part.double() if part.is_floating_point() else part for part in data.train)
    images, lambdas = (20, LAMBDAS[20::20]) if smoke else (500, LAMBDAS[::4])
    rows: list[report.Row] = []
    for loss in ("hinge", "softplus"):
        if only not in f"{loss} sweep":
            continue
        ours = partial(
            regularisation_sweep, inputs, labels, *data.test, pairs=[CLASSES], loss=loss, images=images, lambdas=lambdas
        )  # fmt: skip
        chosen = [(labels == kind).nonzero().squeeze(1)[:images] for kind in CLASSES]
        signs = np.repeat([-1.0, 1.0], [len(part) for part in chosen])
        problem = analysis_peers.Problem(inputs[torch.cat(chosen)].flatten(1).numpy(), signs, loss)
        peers = {
            name: partial(analysis_peers.sweep, problem, make, lambdas)
            for name, make in analysis_peers.solvers(loss).items()
        }
        contenders = [Contender("pyrobust", [ours], budget=30.0)]
        contenders += [Contender(name, [call], optional=True, budget=30.0) for name, call in peers.items()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the excess tells
            times = race(contenders, torch.device("cpu"), rounds=rounds, sample_s=0.0)
            result = ours()
            own = [
                problem.objective(w.numpy(), float(b), lam)
                for w, b, lam in zip(result.weight[0], result.bias[0], lambdas, strict=True)
            ]
            ends = {"pyrobust": own, **{name: call() for name, call in peers.items() if not times[name].error}}
        best = [min(values) for values in zip(*ends.values(), strict=True)]
        for name, timing in times.items():
            row: report.Row = {"sweep": loss, "data": data.name, "images": len(signs), "lambdas": len(lambdas)}
            row |= {"by": name, "times": timing.to_json(), "note": timing.error}
            if not timing.error:
                row |= {"seconds": timing.median, "over_ours": timing.median / times["pyrobust"].median}
                row["excess"] = max(end / least - 1 for end, least in zip(ends[name], best, strict=True))
            rows.append(row)
    return rows


def run(device: torch.device, *, smoke: bool, rounds: int = 0, only: str = "") -> dict[str, Any]:
    """Time, print, and return what goes into the JSON.

    Args:
        rounds: of ours and its peers, in turn (default 5).
        only: what contains this: "spectra", "largest", "hinge sweep", "softplus sweep".
    """
    rounds = rounds or (2 if smoke else 5)
    kept = keep_memory()
    batch, sample_s = (4, 0.02) if smoke else (64, 0.5)
    subjects = [networks.scikit_digits(device, batch, smoke), networks.cifar(device, batch, smoke)]
    rows: list[report.Row] = []
    if only in "spectra":
        for subject in subjects:
            rows += spectra(subject, device, rounds, sample_s)
    if only in "largest":
        # The features below the last layer: 64 of the small network, 2048 of the larger.
        wide = (subjects[0], "6", 2) if smoke else (subjects[1], "11", 2)
        rows += largest(*wide, device, min(rounds, 2))
    report.table("Jacobian spectra per second", rows, SPECTRUM_COLUMNS)
    report.notes(rows, "by")
    found = sweeps(smoke, rounds, only)
    report.table(
        "Sweeps of one pair of classes on the CPU; excess: of the objective over the best found", found, SWEEP_COLUMNS
    )
    report.notes(found, "by")
    return {
        "networks": [subject.to_json() for subject in subjects],
        "memory_kept": kept,
        "spectra": rows,
        "sweeps": found,
    }

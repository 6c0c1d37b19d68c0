"""Seed 001, "Example: SVM on MNIST": linear classifiers of all pairs of digits, from overfitted to the nearest-centroid limit.

``python -m bench.reproduce.linear_tilting`` solves every pair for 81 values of λ (minutes for support vector machines with
``--quick``; logistic regression too without), and writes Markdown, JSON and figures to bench/results/reproduce. Finished pairs are
kept in bench/.cache, for as long as the solvers and what they are given stay as they are.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.networks import CACHE
from bench.reproduce import linear_tilting_report as reporting
from bench.reproduce._common import Run, command
from bench.reproduce._figures import DPI
from pyrobust._progress import Progress
from pyrobust.analysis import _duality, _hinge, _softplus
from pyrobust.analysis import sweep as solving
from pyrobust.analysis.geometry import Loss
from pyrobust.analysis.sweep import LAMBDAS, Sweep, regularisation_sweep
from pyrobust.analysis.work import Work
from pyrobust.data import load
from pyrobust.evaluation.plots import png, styled


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        data: name of the data set.
        images: training samples a class.
        lambdas: of the sweeps.
        losses: one sweep each.
        pairs: of classes; None: all.
        shown: two of the pairs, the easy one first, that figures are made of and that the paper compares.
        shifted: the pair of the paper's note 5.
    """

    data: str
    images: int
    lambdas: Sequence[float]
    losses: Sequence[Loss]
    pairs: Sequence[tuple[int, int]] | None = None
    shown: Sequence[tuple[int, int]] = ((0, 1), (7, 9))
    shifted: tuple[int, int] = (1, 8)


SIZES = {
    "quick": Size("mnist", 3000, LAMBDAS, ("hinge",)),
    "full": Size("mnist", 3000, LAMBDAS, ("hinge", "softplus")),
    "smoke": Size("digits", 60, (0.01, 0.1, 1.0, 10.0, 100.0, 1e5), ("hinge",), ((0, 1), (1, 8), (7, 9))),
}


def reproduce(run: Run) -> tuple[str, dict[str, Any]]:
    """Sweep; the Markdown, and the numbers for the JSON."""
    size = SIZES[run.size]
    data = load(size.data)
    assert data.train is not None
    parts = [part.to(run.device) for part in (*data.train, *data.test)]
    work = Work(None if run.size == "smoke" else kept(size, parts), _tell())
    sections, numbers = [], {}
    for loss in size.losses:
        sweep = regularisation_sweep(
            *parts, pairs=size.pairs, loss=loss, images=size.images, lambdas=size.lambdas, work=work
        )
        centroid = reporting.nearest_centroid_errors(sweep, *parts)
        files = _figures(run, size, sweep, *data.train)
        sections.append(reporting.section(sweep, centroid, size.shown, size.shifted, files))
        numbers[loss] = reporting.plain(sweep, centroid)
    return reporting.markdown(size.data, size.images, size.lambdas, sections), numbers


def kept(size: Size, parts: Sequence[Tensor]) -> Path:
    """Where finished pairs are kept: a folder for each version of the solvers, the data, and what is asked of them."""
    digest = hashlib.sha256(repr((size.images, tuple(size.lambdas), size.pairs, torch.__version__)).encode())
    for module in (solving, _hinge, _softplus, _duality):
        digest.update(inspect.getsource(module).encode())
    for tensor in parts:
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return CACHE / "reproduce" / f"linear-tilting-{digest.hexdigest()[:24]}"


def _figures(run: Run, size: Size, sweep: Sweep, *train: Any) -> dict[str, str]:
    """Draw them; their captions by the names of their files."""
    made = {
        "sweep": ("Errors, distances, tilting angle and norm over λ: thin lines pairs, thick their means", sweep.plot())
    }
    last = len(sweep.lambdas) - 1
    shown = [round(k * last / 4) for k in range(4)]  # what lies above is the limit
    for pair in size.shown:
        view = sweep.view(sweep.pairs.tolist().index(list(pair)), *train)
        name = f"{pair[0]} against {pair[1]}"
        made[f"{pair[0]}-{pair[1]}-distances"] = (f"{name}: distances and the scaled loss", view.plot_distances(shown))
        made[f"{pair[0]}-{pair[1]}-plane"] = (f"{name}: the tilting plane", view.plot_planes(shown))
        mirrors = view.plot_mirrors(shown)
        made[f"{pair[0]}-{pair[1]}-mirrors"] = (f"{name}: mirror images, and the distances to them", mirrors)
    files = {}
    for key, (caption, figure) in made.items():
        path = run.path(f"{sweep.loss}-{key}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with styled():
            path.write_bytes(png(figure, DPI))
        files[path.name] = caption
    return files


def _tell() -> Any:
    began = time.monotonic()

    def tell(progress: Progress) -> None:
        print(f"  {progress.title}: {progress.done} of {progress.total}, {time.monotonic() - began:.0f} s", flush=True)

    return tell


def main(arguments: list[str] | None = None) -> int:
    assert __doc__
    return command("linear-tilting", __doc__.partition("\n")[0], reproduce, arguments)


if __name__ == "__main__":
    sys.exit(main())

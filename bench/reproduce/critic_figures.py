"""Figures 4.2 and 4.4 of seed 003: what becomes of digits that Carlini and Wagner's attack turns into others, with confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.reproduce._common import Run
from bench.reproduce._figures import DPI, pictures
from bench.reproduce.critic_measures import Effort, confidence
from pyrobust.attacks import carlini_wagner
from pyrobust.evaluation.checks import predict, verify
from pyrobust.evaluation.plots import COLOURS, panels, png, styled

CONFIDENT = 0.95
SHOWN = 12  # images of figure 4.4


def margin_for(probability: float, classes: int = 10) -> float:
    """The margin of logits with which the likeliest of K classes has at least that probability: log((K − 1) p / (1 − p))."""
    return math.log((classes - 1) * probability / (1 - probability))


def matrix(run: Run, model: nn.Module, test: tuple[Tensor, Tensor], effort: Effort) -> tuple[str, str]:
    """Draw figure 4.2: an image of each class (the diagonal), turned into every other class. The file, and what is to be said."""
    x, y = test
    right = predict(model, x)[1] == y
    firsts = torch.stack([found[0] for c in range(10) if len(found := (right & (y == c)).nonzero().flatten())])
    originals, classes = x[firsts], y[firsts]
    sources = torch.arange(len(classes), device=y.device).repeat_interleave(10)
    targets = torch.arange(10, device=y.device).repeat(len(classes))
    starts = originals[sources]
    adv = _attacked(model, starts, targets, effort, CONFIDENT, targeted=True)
    logits, predictions = predict(model, adv)
    verdict = verify(starts, adv, targets, predictions, norm="l2", bounds=(0.0, 1.0), targeted=True)
    own = (targets == classes[sources]).cpu()
    reached = verdict.adversarial & (confidence(logits).cpu() >= CONFIDENT) & ~own
    shown = torch.ones_like(adv)  # blank
    shown[own], shown[reached] = starts[own], adv[reached]
    path = run.path("figure-4.2.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tiled(shown, classes.tolist()))
    clean = float(confidence(predict(model, originals)[0]).mean())
    missed = int((~own).sum()) - int(reached.sum())
    return path.name, (
        f"The first image of each class that is right (the diagonal; mean confidence {100 * clean:.0f} %), turned by a targeted "
        f"C&W attack into the class of each column with a confidence of at least {100 * CONFIDENT:.0f} %: {int(reached.sum())} of "
        f"{int((~own).sum())} were found" + (f", the {missed} others are blank." if missed else ".")
    )


def _tiled(images: Tensor, classes: list[int]) -> bytes:
    """The PNG of ten images (10 K, 1, H, W) a row, one row a class."""
    framed = F.pad(images[:, 0].cpu(), (1,) * 4, value=1.0)
    size = framed.shape[1]
    grid = framed.view(len(classes), 10, size, size).transpose(1, 2).reshape(len(classes) * size, 10 * size)
    with styled():
        figure = Figure(figsize=(5.2, 0.5 * len(classes) + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.imshow(grid, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xticks([size * (column + 0.5) - 0.5 for column in range(10)], range(10))
        axis.set_yticks([size * (row + 0.5) - 0.5 for row in range(len(classes))], classes)
        axis.set_xlabel("class aimed at")
        axis.set_ylabel("class of the image")
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        return png(figure, DPI)


def levels(run: Run, model: nn.Module, test: tuple[Tensor, Tensor], effort: Effort) -> str:
    """Draw figure 4.4: test images that are right, picked at random, on the boundary of another class, and well inside it. The
    file's name."""
    order = torch.randperm(len(test[1]), generator=torch.Generator().manual_seed(0)).to(test[1].device)
    picked = order[predict(model, test[0])[1][order] == test[1][order]][:SHOWN]
    x, y = (part[picked] for part in test)
    boundary = _attacked(model, x, y, effort, None)
    # Targeted, since a margin over the true class alone would leave a third one likely.
    inside = _attacked(model, x, predict(model, boundary)[1], effort, CONFIDENT, targeted=True)
    kinds = {
        "test images": x,
        "at the boundary": boundary,
        "high confidence": inside,
    }
    rows, under = {}, []
    for name, images in kinds.items():
        logits, predictions = predict(model, images)
        probable = confidence(logits)
        rows[f"{name}\n(mean {100 * float(probable.mean()):.0f} %)"] = images
        under.append([f"{c}: {100 * p:.0f} %" for c, p in zip(predictions.tolist(), probable.tolist(), strict=True)])
    path = run.path("figure-4.4.png")
    pictures(path, rows, under=under)
    return path.name


def by_epoch(run: Run, values: Mapping[str, Sequence[float]]) -> str:
    """Draw ρ after every epoch of the training with the critic, a line a network. The file's name."""
    with styled():
        figure, (axis,) = panels(["Training with the critic"])
        for (name, rho), colour in zip(values.items(), COLOURS, strict=False):
            axis.plot(range(1, len(rho) + 1), rho, color=colour, marker="o", markersize=3, linewidth=1.3, label=name)
        axis.set_xlabel("epoch")
        axis.set_ylabel(r"$\rho$ under DDN, 50 steps")
        axis.set_ylim(bottom=0)
        axis.legend()
        path = run.path("training.png")
        path.write_bytes(png(figure, DPI))
    return path.name


def _attacked(
    model: nn.Module, x: Tensor, y: Tensor, effort: Effort, probability: float | None, targeted: bool = False
) -> Tensor:
    margin = 0.0 if probability is None else margin_for(probability)
    return carlini_wagner(model, x, y, norm="l2", confidence=margin, targeted=targeted, **effort.carlini)

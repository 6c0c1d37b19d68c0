"""Figures 3.4, 3.5 and 3.7 of seed 003: error and robustness over C, and the nearest adversarial examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.reproduce._common import Run
from bench.reproduce._figures import DPI, pictures
from bench.reproduce._runs import Runs, mean, spread
from pyrobust.attacks import deepfool
from pyrobust.evaluation.plots import COLOURS, png, styled

Sweep = Mapping[float, Runs]
LINES = {"rho": ("DeepFool", "-"), "nearest": ("nearest of DeepFool and DDN", "--")}


def sweeps(run: Run, networks: Mapping[str, tuple[str, Sweep]]) -> str:
    """Draw test error and ρ over C, a column a network; the file's name.

    Args:
        networks: by name the number of the paper's figure, and the measures by C.
    """
    with styled():
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, len(networks), squeeze=False, sharex=True, sharey="row")
        for (error, rho), (name, (number, sweep)) in zip(axes.T, networks.items(), strict=True):
            error.set_title(f"{name} (figure {number})", loc="left")
            _line(error, sweep, "error", "test error", "-", COLOURS[0])
            for key, (label, style) in LINES.items():
                _line(rho, sweep, key, label, style, COLOURS[1] if key == "rho" else COLOURS[2])
            rho.set_xscale("log")
            rho.set_xlabel("$C$, weight of the margin sensitivity")
        axes[0, 0].set_ylim(bottom=0)  # once all is drawn, since the panels of a row share their limits
        axes[1, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("test error (%)")
        axes[1, 0].set_ylabel(r"$\rho_{\mathrm{adv}}$ = mean $\|r\|_2\,/\,\|x\|_2$")
        axes[1, 0].legend(loc="best")
        path = run.path("figures-3.4-3.5.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure, DPI))
    return path.name


def _line(axis: Axes, sweep: Sweep, key: str, label: str, style: str, colour: str) -> None:
    """The mean over runs, and a band of three standard deviations where there are several, as in the paper."""
    weights = np.array(sorted(sweep))
    means = np.array([mean(sweep[weight], key) for weight in weights])
    band = 3 * np.array([spread(sweep[weight], key) for weight in weights])
    axis.plot(weights, means, style, color=colour, marker="o", markersize=3, linewidth=1.3, label=label)
    if band.any():
        axis.fill_between(weights, means - band, means + band, color=colour, alpha=0.15, linewidth=0)


def examples(run: Run, models: Mapping[str, nn.Module], test: tuple[Tensor, Tensor]) -> str:
    """Draw the first image of each class that every network gets right, and what DeepFool makes of it; the file's name."""
    x, y = test
    with torch.no_grad():
        right = torch.stack(
            [torch.cat([model(part).argmax(1) for part in x.split(1000)]) == y for model in models.values()]
        )
    everywhere = right.all(0)
    chosen = [int(found[0]) for c in range(10) if len(found := (everywhere & (y == c)).nonzero().flatten())]
    x, y = x[chosen], y[chosen]
    rows, under = {"original": x}, [[""] * len(y)]
    for name, model in models.items():
        adv = deepfool(model, x, y, steps=50, max_step=0.5)
        with torch.no_grad():
            predicted = model(adv).argmax(1)
        rows[name] = adv
        under.append([f"{a} → {b}" for a, b in zip(y.tolist(), predicted.tolist(), strict=True)])
    path = run.path("figure-3.7.png")
    pictures(path, rows, under=under)
    return path.name

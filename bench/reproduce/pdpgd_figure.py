"""Figure 5.1 of seed 003: images and the nearest adversarial examples in four norms, a panel a network."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from bench.reproduce.pdpgd_attacks import NORMS, SMOKE_STEPS, Images
from pyrobust import attacks
from pyrobust.evaluation.plots import NORM_LABELS, png, styled

SHOWN, FRAME = 10, 1


def draw(path: Path, networks: dict[str, tuple[nn.Module, Images]], smoke: bool) -> None:
    """Write the PNG: images picked at random, the same for every network, and our default attack on them.

    Where a network is wrong already, the image itself is shown.
    """
    images = next(iter(networks.values()))[1]
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(0))
    chosen = order[:SHOWN].to(images.labels.device)
    x, y = images.inputs[chosen], images.labels[chosen]
    panels = {"original images": ([x], [""])}
    for name, (model, _) in networks.items():
        rows = [_adversarial(model, x, y, norm, smoke) for norm in NORMS]
        panels[f"adversarial examples: {name}"] = rows, [NORM_LABELS[norm] for norm in NORMS]
    heights = [len(rows) for rows, _ in panels.values()]
    with styled():
        figure = Figure(figsize=(5.0, 0.46 * sum(heights) + 0.25 * len(panels)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
        for axis, (title, (rows, labels)) in zip(axes, panels.items(), strict=True):
            axis.imshow(_tiled(rows), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(title, loc="left")
            axis.set_xticks([])
            size = x.shape[-2] + 2 * FRAME
            axis.set_yticks([size * (row + 0.5) - 0.5 for row in range(len(rows))], labels)
            axis.tick_params(length=0)
            axis.grid(False)
            axis.spines[:].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(figure))


def _adversarial(model: nn.Module, x: Tensor, y: Tensor, norm: str, smoke: bool) -> Tensor:
    steps = SMOKE_STEPS if smoke else 500
    return (
        attacks.pdgd(model, x, y, steps=steps) if norm == "l2" else attacks.pdpgd(model, x, y, norm=norm, steps=steps)
    )


def _tiled(rows: list[Tensor]) -> Tensor:
    """One grey picture of rows of images (N, 1, H, W), each in a white frame."""
    framed = [F.pad(row[:, 0].cpu(), (FRAME,) * 4, value=1.0) for row in rows]
    return torch.cat([torch.cat(list(row), dim=1) for row in framed])

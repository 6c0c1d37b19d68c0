"""What is said of a layer's filters: how smooth they are, how much their sizes differ, how many have vanished."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from bench.reproduce._figures import DPI
from pyrobust.analysis import Filters, filters
from pyrobust.evaluation.plots import png, styled

VANISHED = 0.01  # of the layer's largest filter norm


def roughness(weight: Tensor) -> float:
    """‖differences between neighbours‖² / ‖weights‖² of kernels (…, h, w), per neighbour and weight: 2 for white noise, 0 for
    constant kernels."""
    w = weight.detach().double()
    across, along = w.diff(dim=-1), w.diff(dim=-2)
    neighbours = across.numel() + along.numel()
    return ((across.square().sum() + along.square().sum()) / neighbours / w.square().mean()).item()


def filter_norms(weight: Tensor) -> Tensor:
    """(outputs,) l2 norms in float64."""
    return weight.detach().double().flatten(1).norm(dim=1).cpu()


def variation(weight: Tensor) -> float:
    """Standard deviation over mean of the filters' norms."""
    norms = filter_norms(weight)
    return (norms.std() / norms.mean()).item()


def vanished(weight: Tensor) -> int:
    """How many filters have a norm below `VANISHED` of the largest."""
    norms = filter_norms(weight)
    return int((norms < VANISHED * norms.max()).sum())


def draw_filters(path: Path, model: nn.Module, example: Tensor, count: int, layers: int | None = None) -> None:
    """A seeded random selection of each layer's filters with their RMS; of the first ``layers`` alone, or of all."""
    figure = Filters(filters(model, example, count=count).layers[:layers]).plot()
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        path.write_bytes(png(figure, DPI))

"""Activation patterns: which linear piece of a network inputs share, and how far along a line it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import Model, check_inputs
from pyrobust.analysis._pieces import Pattern, first_change, follow
from pyrobust.analysis.jacobian import ANY
from pyrobust.analysis.linearity import check_distances, unit_rows
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SharedActivations:
    """What :func:`shared_activations` measured.

    Attributes:
        distances: (T,) ‖z‖₂.
        units: m, of the network.
        shared: by direction (T, N): the share of the m units that are on the same piece at x and at x + z.
    """

    distances: Tensor
    units: int
    shared: dict[str, Tensor]

    def plot(self) -> Figure:
        """Mean over samples by distance, two standard errors shaded."""
        from pyrobust.analysis._draw_activations import draw_shared

        return draw_shared({"": self})


@dataclass(frozen=True)
class CellSizes:
    """What :func:`cell_sizes` measured: by direction (N,), the distance in l2 to the edge of the cell; inf without one."""

    sizes: dict[str, Tensor]

    def plot(self) -> Figure:
        """Share of the samples whose cell ends within a distance, over the distance."""
        from pyrobust.analysis._draw_activations import draw_cells

        return draw_cells({"": self})


@torch.no_grad()
def shared_activations(
    model: Model,
    inputs: Tensor,
    directions: Mapping[str, Tensor],
    *,
    distances: Sequence[float],
    batch_size: int = 128,
    work: Work | None = None,
    name: str = "shared activations",
) -> SharedActivations:
    """(1/m) Σᵢ 1[φᵢ(x) = φᵢ(x + t v)] over the distance t, φᵢ the piece of unit i, v a unit vector in l2.

    A unit is a value that goes into an activation; a ReLU's pieces are ≥ 0 and < 0, a ReLU6's three. The winners of max
    poolings are no units.

    Args:
        model: from (N, …) to any (N, …), its activations linear by pieces: ReLU and its kin (leaky, P, R, 6), Hardtanh,
            Hardsigmoid, Threshold, clamp, as modules or as functions.
        inputs: x, (N, …).
        directions: like ``inputs``, by name; normalised here, no row of zeros.
        distances: t, >= 0, in the units of the inputs.
        batch_size: samples a pass; the pieces of one batch at x are what is kept, a byte a unit.
        work, name: progress and resume, and what this computation is called there.

    Returns:
        SharedActivations, in float64.

    Raises:
        TypeError, ValueError: naming the argument; an activation that is not linear by pieces, with its module.

    Cost: a forward pass, and one for each direction and distance.
    Source: seed 004, §5.5 and fig. 5.
    """
    units, lengths = _checked(inputs, directions, batch_size), check_distances(distances)
    model = getattr(model, "_orig_mod", model)  # of torch.compile, which would compile anew for each pattern
    with undisturbed(model):
        depends = follow(model, inputs[:1], next(iter(units.values()))[:1]).depends
        with Pattern(depends=depends) as pattern:
            model(inputs[:1])
    count = sum(piece.numel() for piece in pattern.pieces)
    if count == 0:
        raise ValueError("model: expected activations that are linear by pieces, got none: there is no pattern")

    def measure(ids: Tensor) -> dict[str, Tensor]:
        x, shares = inputs[ids], []
        with Pattern(depends=depends) as at_x:
            model(x)
        for unit in units.values():
            v = unit[ids]
            for t in lengths:
                with Pattern(at_x.pieces, depends) as moved:
                    model(torch.add(x, v, alpha=t))
                shares.append(moved.equal.double() / count)
        return {"shared": torch.stack(shares, 1).unflatten(1, (len(units), len(lengths)))}

    with undisturbed(model):
        ids = torch.arange(len(inputs), device=inputs.device)
        found = joined((work or Work()).map(name, ids.split(batch_size), measure))["shared"]
    shared = dict(zip(units, found.permute(1, 2, 0), strict=True))
    return SharedActivations(torch.tensor(lengths, dtype=torch.float64), count, shared)


def cell_sizes(
    model: Model,
    inputs: Tensor,
    directions: Mapping[str, Tensor],
    *,
    batch_size: int = 128,
    work: Work | None = None,
    name: str = "cell sizes",
) -> CellSizes:
    """max {t : the network is one linear map on [x, x + t v]}, v a unit vector in l2.

    As long as no unit changes its piece, and no max pooling its winner, every value is linear in t; so the first change is the
    least of quotients, one a unit, that a single pass on dual numbers gives: exactly, where a bisection would need a pass
    a bit. Where x lies on the edge of a cell, it is the cell that the line enters.

    Args:
        model: as in :func:`shared_activations`; also without any activation. Max poolings are followed.
        inputs: x, (N, …).
        directions: like ``inputs``, by name; normalised here, no row of zeros.
        batch_size: samples a pass.
        work, name: progress and resume, and what this computation is called there.

    Returns:
        CellSizes, in the dtype of the inputs.

    Raises:
        TypeError, ValueError: naming the argument; an activation that is not linear by pieces, with its module.

    Cost: a forward pass on dual numbers for each direction.
    Source: seed 004, §3 (cells X(φ)) and §5.5 (their size).
    """
    units = _checked(inputs, directions, batch_size)

    def measure(ids: Tensor) -> dict[str, Tensor]:
        return {"sizes": torch.stack([first_change(model, inputs[ids], unit[ids]) for unit in units.values()], 1)}

    with undisturbed(model):
        ids = torch.arange(len(inputs), device=inputs.device)
        found = joined((work or Work()).map(name, ids.split(batch_size), measure))["sizes"]
    return CellSizes(dict(zip(units, found.T, strict=True)))


def _checked(inputs: Tensor, directions: Mapping[str, Tensor], batch_size: int) -> dict[str, Tensor]:
    """The directions' unit rows."""
    check_inputs(inputs, ANY)
    check_count(batch_size=batch_size)
    units = {name: unit_rows(name, direction, inputs) for name, direction in directions.items()}
    if not units:
        raise ValueError("directions: expected at least one")
    return units

"""How far the linear pieces of a network reach, around data and around noise."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust.analysis._draw_activations import draw_cells, draw_shared
from pyrobust.analysis._noise import noise_images
from pyrobust.analysis.activations import CellSizes, SharedActivations, cell_sizes, shared_activations
from pyrobust.analysis.commands.linearity import (
    QUARTILES,
    check_linearity,
    directions_of,
    reference_distance,
    smallest_norms,
)
from pyrobust.analysis.linearity import random_directions
from pyrobust.analysis.page import Section, Table
from pyrobust.analysis.session import Session


def activations_sections(
    session: Session, reach: float | None = None, points: int = 13, attack_steps: int = 100
) -> list[Section]:
    """Activations in common over distance, and sizes of linear cells, at the data and at uniform noise.

    Args:
        session: what is analysed; activations that are not linear by pieces are an error that names them.
        reach: the largest distance; None: twice the l2 norm that suffices for 95 % of the samples.
        points: distances, from 0.
        attack_steps: of the minimum-norm attack (FMN) that finds this norm.
    """
    check_linearity(reach, points, attack_steps)
    reference = reference_distance(smallest_norms(session, attack_steps) if reach is None else torch.empty(0), reach)
    distances = torch.linspace(0, 2 * reference, points).tolist()
    ids = torch.arange(len(session.inputs), device=session.device)
    noise = noise_images(ids, session.inputs.shape[1:], (0.0, 1.0), session.inputs.dtype, session.seed)
    places: dict[str, tuple[Tensor, dict[str, Tensor]]] = {
        "data": (session.inputs, directions_of(session, reference)),
        "noise": (noise, {"random": random_directions(noise, seed=session.seed)}),
    }
    shared = {
        place: shared_activations(
            session.model, *at, distances=distances, batch_size=session.batch_size, work=session.work,
            name=f"shared activations, {place}",
        )
        for place, at in places.items()
    }  # fmt: skip
    cells = {
        place: cell_sizes(
            session.model, *at, batch_size=session.batch_size, work=session.work, name=f"cell sizes, {place}"
        )
        for place, at in places.items()
    }
    return [_shared(shared, reference), _cells(cells)]


def _shared(found: dict[str, SharedActivations], reference: float) -> Section:
    units = found["data"].units
    rows = [
        (
            f"{place}, {name}",
            *(f"{100 * v:.2f} %" for v in one.shared[name].mean(1)[[len(one.distances) // 2, -1]].tolist()),
        )
        for place, one in found.items()
        for name in one.shared
    ]
    at = found["data"].distances
    columns = ("inputs, direction", f"at {at[len(at) // 2]:.3g}", f"at {at[-1]:.3g}")
    return Section(
        "Activations in common",
        f"Share of the network's {units} units that are on the same linear piece at x and at x + z: means over samples, two "
        "standard errors shaded; left at the data, right at uniform noise. Adversarial is the direction of projected gradient "
        f"ascent of the cross-entropy within {reference:.3g} in l2.",
        figure=draw_shared({"": found["data"]}, {"": found["noise"]}),
        table=Table(columns, rows),
        data=found,
    )


def _cells(found: dict[str, CellSizes]) -> Section:
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    sizes = {f"{place}, {name}": values for place, one in found.items() for name, values in one.sizes.items()}
    # Nearest: between a size and one that is inf there is nothing.
    rows = [
        (name, *(f"{v:.3g}" for v in torch.quantile(v.double(), at, interpolation="nearest").tolist()))
        for name, v in sizes.items()
    ]
    return Section(
        "Linear cells",
        "Distance along a direction at which the first unit changes its piece, or the first max pooling its winner: up to there "
        "the network is linear. Exact, from one pass on dual numbers.",
        figure=draw_cells({"": CellSizes(sizes)}),
        table=Table(("inputs, direction", *QUARTILES), rows),
        data={"sizes": sizes},
    )

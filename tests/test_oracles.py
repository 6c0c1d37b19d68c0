"""The oracles are tested too: by reaching the boundary, by certificates of optimality, and by brute force in two dimensions."""

from __future__ import annotations

import pytest
import torch
from oracles import NORMS, AllPieces, AnyPiece, Linear, half_space, row_norm

D, BOX = 12, (0.0, 1.0)
G = torch.Generator().manual_seed(0)
X = torch.rand(40, D, generator=G, dtype=torch.float64)
W = torch.randn(D, generator=G, dtype=torch.float64)
W[1::3] = 0  # some coordinates are useless
OFFSET = -(X @ W).min() + 0.3  # every x has w·x + b ≥ 0.3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bounds", [None, BOX])
@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_point_of_a_half_space(norm, bounds, channels):
    weight = W
    distance, shift = half_space(X, weight, OFFSET, norm, bounds, channels)
    reached = distance.isfinite()
    y = (X + shift)[reached]
    assert ((y @ weight + OFFSET).abs() <= 1e-9).all() if norm != "l0" else ((y @ weight + OFFSET) <= 1e-9).all()
    assert torch.allclose(row_norm(shift[reached], norm, channels), distance[reached], rtol=1e-9)
    if bounds is None:
        assert reached.all()
        q = {"l0": None, "l1": torch.inf, "l2": 2, "linf": 1}[norm]
        if q is not None:
            assert torch.allclose(distance, (X @ weight + OFFSET) / torch.linalg.vector_norm(weight, q))
    else:
        assert (y >= -1e-12).all()
        assert (y <= 1 + 1e-12).all()
        corner = (weight < 0).double()  # the corner of the box that gives w·x its least value
        assert torch.equal(reached, (corner @ weight + OFFSET).expand(len(X)) <= 0)
    for _ in range(20):  # points of the half-space (and box) are no nearer
        z = (
            X
            + torch.randn(X.shape, generator=G, dtype=torch.float64)
            * torch.rand(X.shape, generator=G, dtype=torch.float64) ** 4
            * 3
        )
        z = torch.where(torch.rand(X.shape, generator=G) < 0.5, z, X)
        z = z if bounds is None else z.clamp(*bounds)
        inside = (z @ weight + OFFSET <= 0) & reached
        assert (row_norm(z - X, norm, channels)[inside] >= distance[inside] - 1e-9).all()


@pytest.mark.parametrize("bounds", [None, BOX])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["linear", "any", "all"])
def test_models_against_a_grid(kind, norm, bounds):
    """Two dimensions, a grid of step 1/100: its nearest adversarial point is at most two steps farther than the nearest."""
    x = torch.tensor([[0.62, 0.71], [0.9, 0.55], [0.75, 0.8]], dtype=torch.float64)
    if kind == "linear":
        model = Linear(
            torch.tensor([[1.0, 2.0], [-0.5, 0.3], [0.2, -1.0]], dtype=torch.float64),
            torch.tensor([-0.4, 0.1, 0.2], dtype=torch.float64),
        )
        distance, shift = model.nearest(x, torch.zeros(3, dtype=torch.int64), norm, bounds)
    elif kind == "any":
        model = AnyPiece(
            torch.tensor([[1.0, 2.0], [2.0, 0.1]], dtype=torch.float64), torch.tensor([-1.2, -0.7], dtype=torch.float64)
        )
        distance, shift = model.nearest(x, norm, bounds)
    else:
        model = AllPieces(
            torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64), torch.tensor([-0.4, -1.0], dtype=torch.float64)
        )
        distance, shift = model.nearest(x, norm, bounds)
    assert (model(x).argmax(1) == 0).all()
    found = distance.isfinite()
    logits = model(x + 1.0001 * shift)
    assert (logits[:, 1:].amax(1) >= logits[:, 0] - 1e-9)[found].all(), (
        "just beyond the nearest point the class changes"
    )
    low, high = bounds or (-1.5, 2.5)
    axis = torch.linspace(low, high, int((high - low) * 100) + 1, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    grid = grid[model(grid).argmax(1) != 0]
    for row in range(3):
        near = torch.cat([grid, x[row].expand(len(grid), 2).clone().index_copy_(1, torch.tensor([0]), grid[:, :1]),
                          x[row].expand(len(grid), 2).clone().index_copy_(1, torch.tensor([1]), grid[:, 1:])])  # fmt: skip
        near = near[model(near).argmax(1) != 0]
        best = row_norm(near - x[row], norm).min() if len(near) else torch.tensor(torch.inf)
        if norm == "l0":
            assert best == distance[row]
        else:
            assert distance[row] - 1e-9 <= best <= distance[row] + 0.04

"""Networks of linear pieces, their Jacobians entry by entry, and the norms of these by enumeration."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from pyrobust.training import Batch, Objective, Term

P = {"l1": 1.0, "l2": 2.0, "linf": math.inf}
DUAL = {"l1": math.inf, "l2": 2.0, "linf": 1.0}
COMPUTABLE = [("l2", "l2"), ("l1", "l1"), ("l1", "l2"), ("l1", "linf"), ("l2", "linf"), ("linf", "linf")]


def relu_net(seed: int = 0, sizes: tuple[int, ...] = (6, 12, 8, 4), batch_norm: bool = False) -> nn.Sequential:
    """A float64 network with random biases: its linear pieces do not meet in one point."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if batch_norm else []), nn.ReLU()]
        layers = layers[: -2 if batch_norm else -1]  # the last layer is linear
        return nn.Sequential(*layers).double()


# Seed 10: no unit of relu_net() changes within 0.01 (linf) of the first eight points, so that eps <= 1e-3 stays in their cells.
def batch_of(count: int, size: int = 6, classes: int = 4, seed: int = 10, **options: object) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = 0.25 + 0.5 * torch.rand(count, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    return Batch(inputs, labels, torch.arange(count) + 3, **options)  # type: ignore[arg-type]


def value(term: Term, model: nn.Module, batch: Batch) -> Tensor:
    return Objective(term=term)(model, batch)[0]


def jacobians(model: nn.Module, inputs: Tensor) -> Tensor:
    """(N, K, D), entry by entry, by reverse mode on one sample at a time."""
    return torch.stack([
        torch.autograd.functional.jacobian(lambda x: model(x.unsqueeze(0))[0], sample).flatten(1) for sample in inputs
    ])  # fmt: skip


def operator_norm(matrix: Tensor, p: str, q: str) -> float:
    """Table 1 of the seed, by columns, rows or singular values; the hard ones by enumeration."""
    if (p, q) == ("l2", "l2"):
        return float(torch.linalg.svdvals(matrix)[0])
    if p == "l1":
        return float(torch.linalg.vector_norm(matrix, P[q], dim=0).max())
    if q == "linf":
        return float(torch.linalg.vector_norm(matrix, DUAL[p], dim=1).max())
    # NP-hard: over the corners of v (p = inf) or of u (q = 1).
    side = matrix.T if p == "linf" else matrix
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=len(side))), dtype=torch.float64)
    return float(torch.linalg.vector_norm(corners @ side, P[q] if p == "linf" else DUAL[p], dim=1).max())


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)])

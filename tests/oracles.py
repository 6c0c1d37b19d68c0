"""Oracles of the tests: float64 references that share no code with the package, and models whose nearest adversarial point is known.

The models are made of half-spaces {x : w·x + b ≤ 0}. The nearest point of one has a closed form in every norm, with and without a box
(``half_space``), so it has one for a linear classifier, for a margin that is the minimum of linear pieces (a union of half-spaces),
and for one that is the maximum of linear pieces on disjoint coordinates (every block must give way by itself).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

NORMS = ("l0", "l1", "l2", "linf")
UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
Bounds = tuple[float, float]


def smallest(dtype: torch.dtype) -> float:
    """The smallest positive number of a dtype."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def row_norm(x: Tensor, norm: str, channels: int = 1) -> Tensor:
    """The norm of each row in float64; l0 counts positions over the ``channels`` planes."""
    flat = x.double().flatten(1)
    if norm == "l0":
        return (flat.reshape(len(flat), channels, -1) != 0).any(1).sum(1).double()
    return torch.linalg.vector_norm(flat, {"l1": 1, "l2": 2, "linf": math.inf}[norm], dim=1)


# ---- half-spaces ----


def _bisect(value, low: Tensor, high: Tensor) -> Tensor:
    """The smallest t in [low, high] with value(t) ≥ 0, for a value that rises with t; one a row."""
    for _ in range(120):
        middle = (low + high) / 2
        reached = value(middle) >= 0
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    return high


def half_space(
    inputs: Tensor, weight: Tensor, offset: Tensor, norm: str, bounds: Bounds | None = None, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """The nearest point of {w·x + b ≤ 0} (and of the box) to each row.

    Args:
        inputs: (N, …), inside the box.
        weight, offset: (D,) and scalar, or one a row: (N, D), (N,).
        norm: "l0", "l1", "l2" or "linf".
        bounds: (low, high), or None for no box.
        channels: for l0: planes a row; a position counts once over them.

    Returns:
        (distance (N,), perturbation (N, D)) in float64: (0, 0) inside, (inf, NaN) where the box leaves no such point.
    """
    x = inputs.double().flatten(1)
    w = weight.double().expand_as(x)
    need = ((w * x).sum(1) + offset.double()).clamp(min=0)  # how much w·x must fall
    low, high = bounds or (-math.inf, math.inf)
    room = torch.where(w > 0, x - low, high - x)  # how far a coordinate can go in its useful direction
    room = torch.where(w == 0, torch.zeros_like(room), room)
    gain = torch.where(w == 0, torch.zeros_like(room), w.abs() * room)
    possible = gain.sum(1) >= need
    if norm == "linf":
        top = torch.where(room.isfinite(), room, need.unsqueeze(1) / w.abs().amax(1, keepdim=True)).amax(1)
        moved = lambda t: torch.minimum(room, t.unsqueeze(1))  # noqa: E731
        t = _bisect(lambda t: (w.abs() * moved(t)).sum(1) - need, torch.zeros_like(need), top)
        size = moved(t)
    elif norm == "l2":
        top = (room / w.abs()).nan_to_num(0, 0).amax(1).clamp(min=0) + need / w.square().sum(1)
        moved = lambda t: torch.minimum(room, t.unsqueeze(1) * w.abs())  # noqa: E731
        t = _bisect(lambda t: (w.abs() * moved(t)).sum(1) - need, torch.zeros_like(need), top)
        size = moved(t)
    elif norm == "l1":  # the steepest coordinates first, each as far as it goes
        order = w.abs().argsort(1, descending=True)
        gains = gain.gather(1, order)
        before = torch.cat([torch.zeros_like(need).unsqueeze(1), gains.cumsum(1)[:, :-1]], 1)
        used = torch.minimum(gains, (need.unsqueeze(1) - before).clamp(min=0))
        used = torch.where(before.isinf(), torch.zeros_like(used), used)
        size = torch.zeros_like(x).scatter(1, order, used / w.abs().gather(1, order).clamp(min=1e-300))
    else:  # the positions that gain most first, each to the end of its room
        planes = gain.reshape(len(x), channels, -1).sum(1)
        order = planes.argsort(1, descending=True)
        gains = planes.gather(1, order)
        before = torch.cat([torch.zeros_like(need).unsqueeze(1), gains.cumsum(1)[:, :-1]], 1)
        chosen = torch.zeros_like(planes, dtype=torch.bool).scatter(
            1, order, (before < need.unsqueeze(1)) & (gains > 0)
        )
        chosen = chosen.repeat(1, channels)
        far = (need.unsqueeze(1) / w.abs()).nan_to_num(0, 0)  # stands for an infinite room
        size = torch.where(chosen, torch.where(room.isfinite(), room, far), 0)
    shift = torch.where(possible.unsqueeze(1), -size.copysign(w), math.nan)
    distance = torch.where(possible, row_norm(shift.nan_to_num(), norm, channels), math.inf)
    return distance, shift


# ---- models ----


class Linear(nn.Module):
    """Logits W x + b of flattened inputs; the nearest error of label y is that of the nearest half-space y against another class."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs.flatten(1), self.weight, self.bias)

    def nearest(
        self, inputs: Tensor, labels: Tensor, norm: str, bounds: Bounds | None = None, channels: int = 1
    ) -> tuple[Tensor, Tensor]:
        """(distance (N,), perturbation (N, D)) to the nearest input of another class (untargeted)."""
        w, b = self.weight.detach().double(), self.bias.detach().double()
        best = torch.full((len(inputs),), math.inf, dtype=torch.float64)
        shift = torch.full((len(inputs), w.shape[1]), math.nan, dtype=torch.float64)
        for other in range(len(w)):
            d, s = half_space(inputs, w[labels] - w[other], b[labels] - b[other], norm, bounds, channels)
            nearer = (labels != other) & (d < best)
            best, shift = torch.where(nearer, d, best), torch.where(nearer.unsqueeze(1), s, shift)
        return best, shift

    def nearest_target(
        self, inputs: Tensor, targets: Tensor, norm: str, bounds: Bounds | None = None, channels: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The same to the nearest input of class ``targets``; two classes alone (more give a polyhedron)."""
        assert len(self.weight) == 2
        return self.nearest(inputs, 1 - targets, norm, bounds, channels)


class AnyPiece(nn.Module):
    """Two classes, logits (minₖ wₖ·x + bₖ, 0): class 1 is the union of the half-spaces, the nearest one counts."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def pieces(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs.flatten(1), self.weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        margin = self.pieces(inputs).amin(1)
        return torch.stack([margin, torch.zeros_like(margin)], 1)

    def nearest(
        self, inputs: Tensor, norm: str, bounds: Bounds | None = None, channels: int = 1
    ) -> tuple[Tensor, Tensor]:
        """(distance (N,), perturbation (N, D)) of inputs of class 0 to class 1."""
        w, b = self.weight.detach().double(), self.bias.detach().double()
        all_pieces = [half_space(inputs, w[k], b[k], norm, bounds, channels) for k in range(len(w))]
        distances, shifts = torch.stack([d for d, _ in all_pieces]), torch.stack([s for _, s in all_pieces])
        best, place = distances.min(0)
        return best, shifts[place, torch.arange(len(inputs))]


class AllPieces(AnyPiece):
    """Two classes, logits (maxₖ wₖ·x + bₖ, 0) with pieces on disjoint coordinates: class 1 needs every piece ≤ 0.

    The nearest point moves each block to its own nearest point, so the distances combine by the norm itself.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        assert ((weight != 0).sum(0) <= 1).all(), "the pieces must not share coordinates"

    def forward(self, inputs: Tensor) -> Tensor:
        margin = self.pieces(inputs).amax(1)
        return torch.stack([margin, torch.zeros_like(margin)], 1)

    def nearest(
        self, inputs: Tensor, norm: str, bounds: Bounds | None = None, channels: int = 1
    ) -> tuple[Tensor, Tensor]:
        """As of AnyPiece. With ``channels`` > 1 and l0, the pieces must not share positions either."""
        w, b = self.weight.detach().double(), self.bias.detach().double()
        shift = torch.zeros(len(inputs), w.shape[1], dtype=torch.float64)
        for k in range(len(w)):
            shift = shift + half_space(inputs, w[k], b[k], norm, bounds, channels)[1]
        possible = shift.isfinite().all(1)
        return torch.where(possible, row_norm(shift.nan_to_num(), norm, channels), math.inf), shift


# ---- references of the ops, by bisection on the defining equation ----


def threshold(f: Tensor, mass: Tensor) -> Tensor:
    """τ (N, 1) with Σ (f − τ)₊ = mass, by bisection."""
    high = f.amax(1)
    low = torch.minimum(f.amin(1), high - mass) - mass
    return _bisect(lambda t: mass - (f - t.unsqueeze(1)).clamp(min=0).sum(1), low, high).unsqueeze(1)


def project_l1_ball(x: Tensor, radius: Tensor) -> Tensor:
    """The point of {‖y‖₁ ≤ radius} nearest to x, (N, D) in float64; NaN rows for NaN, ±Inf and a negative or NaN radius."""
    tau = torch.where((x.abs().sum(1) <= radius).unsqueeze(1), 0.0, threshold(x.abs(), radius))
    bad = ~(x.isfinite().all(1) & (radius >= 0))
    return (x.abs() - tau).clamp(min=0).copysign(x).masked_fill(bad.unsqueeze(1), math.nan)


def project_l1_box(x: Tensor, center: Tensor, radius: Tensor, low: float, high: float) -> Tensor:
    """The point of {‖y − center‖₁ ≤ radius, low ≤ y ≤ high} nearest to x, (N, D) in float64, for finite input."""
    z = x - center
    room = torch.where(z > 0, high - center, center - low)
    moved = lambda t: torch.minimum((z.abs() - t.unsqueeze(1)).clamp(min=0), room)  # noqa: E731
    zero = torch.zeros_like(radius)
    tau = _bisect(lambda t: radius - moved(t).sum(1), zero, z.abs().amax(1))
    tau = torch.where(moved(zero).sum(1) <= radius, zero, tau)
    return center + moved(tau).copysign(z)


def support_l1_box(direction: Tensor, center: Tensor, radius: Tensor, low: float, high: float) -> Tensor:
    """max ⟨direction, y⟩ over {‖y − center‖₁ ≤ radius, low ≤ y ≤ high}: the steepest coordinates first, as far as they go."""
    room = torch.where(direction > 0, high - center, center - low)
    order = direction.abs().argsort(1, descending=True)
    rooms = room.gather(1, order)
    before = torch.cat([torch.zeros_like(rooms[:, :1]), rooms.cumsum(1)[:, :-1]], 1)
    used = torch.minimum(rooms, (radius.unsqueeze(1) - before).clamp(min=0))
    return (direction * center).sum(1) + (direction.abs().gather(1, order) * used).sum(1)

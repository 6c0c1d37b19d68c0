"""Projections and proximal operators by their own definitions, for the native code and for the plain-PyTorch references alike.

Convex: y is the projection of x onto C iff y ∈ C and ⟨x − y, z⟩ ≤ ⟨x − y, y⟩ for all z ∈ C, that is σ_C(x − y) = ⟨x − y, y⟩ with the support
function σ_C in closed form; y = prox of λ‖·‖ iff ‖x − y‖* ≤ λ and ⟨x − y, y⟩ = λ‖y‖. Both in float64: y is then known to about 151 u of ‖x‖₁, and a slack of 1e-12 is fifty times
that and far below any real defect. Nonconvex sets by what makes a point nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from oracles import row_norm, support_l1_box
from torch import Tensor

from ops.table import rows_of, spread
from pyrobust import ops
from pyrobust.ops import _reference as ref

INF = math.inf
KINDS = ("normal", "cauchy", "sorted", "ties", "zeros", "equal", "one")
SIZES = (1, 2, 3, 30, 151)
SLACK = 1e-12


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def norm(x: Tensor, p: float) -> Tensor:
    return torch.linalg.vector_norm(x, p, dim=1)


def cases(size: Callable[[Tensor], Tensor]):
    """(x, r) in float64: rows of every kind, radii from nothing to beyond the row."""
    for d in SIZES:
        for kind in KINDS:
            x = rows_of(kind, 7, d, torch.float64)
            yield x, size(x) * torch.tensor([0, 1e-9, 0.05, 0.4, 0.9, 1.0, 3.0], dtype=torch.float64)


def ball_points(x: Tensor, p: float, r: Tensor, step: int, surface: bool = False) -> Tensor:
    """Random points of a ball: of its inside, or sparse ones of its surface (a vertex counts most for l1)."""
    if not surface:
        return ops.sample_lp_ball(x, p, r, step=step)
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    v = v * (torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step + 1)) < 0.3)
    size = norm(v, p).unsqueeze(1)
    return torch.where(size > 0, v / size * r.unsqueeze(1), torch.zeros_like(v))


@dataclass(frozen=True)
class Ball:
    """A convex set C(r) around which x is projected."""

    name: str
    native: Callable[[Tensor, Tensor], Tensor]
    reference: Callable[[Tensor, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]
    excess: Callable[[Tensor, Tensor], Tensor]  # how far y is outside C
    support: Callable[[Tensor, Tensor], Tensor]
    point: Callable[[Tensor, Tensor, int], Tensor]

    def __str__(self) -> str:
        return self.name


def lp_ball(p: float, name: str) -> Ball:
    conjugate = {1: INF, 2: 2, INF: 1}[p]
    return Ball(
        name,
        getattr(ops, name),
        lambda x, r: getattr(ref, name)(x, 0.0, r),
        lambda x: norm(x, p),
        lambda y, r: norm(y, p) - r,
        lambda g, r: r * norm(g, conjugate),
        lambda x, r, step: ball_points(x, p, r, step, step % 2 == 0),
    )


def simplex_point(x: Tensor, r: Tensor, step: int) -> Tensor:
    e = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step)).log().neg() ** (
        1 + step % 4
    )
    return e / e.sum(1, keepdim=True) * r.unsqueeze(1)


def box_center(x: Tensor) -> Tensor:
    return spread(x, 0, 1)


def box_point(x: Tensor, r: Tensor, step: int) -> Tensor:
    return (box_center(x) + ball_points(x, 1, r, step, step % 2 == 0)).clamp(0, 1)


BALLS = (
    lp_ball(1, "project_l1_ball"),
    lp_ball(2, "project_l2_ball"),
    lp_ball(INF, "project_linf_ball"),
    Ball(
        "project_simplex",
        ops.project_simplex,
        lambda x, r: ref.project_simplex(x, 0.0, r),
        lambda x: norm(x, 1),
        lambda y, r: torch.maximum((y.sum(1) - r).abs(), -y.amin(1)),
        lambda g, r: r * g.amax(1),
        simplex_point,
    ),
    Ball(
        "project_l1_box",
        lambda x, r: ops.project_l1_box(x, box_center(x), r, (0.0, 1.0)),
        lambda x, r: ref.project_l1_box(x, box_center(x), 0.0, r, 0.0, 1.0),
        lambda x: norm(x.clamp(0, 1) - box_center(x), 1),
        lambda y, r: torch.maximum(norm(y - box_center(y), 1) - r, torch.maximum(-y.amin(1), y.amax(1) - 1)),
        lambda g, r: support_l1_box(g, box_center(g), r, 0.0, 1.0),
        box_point,
    ),
)
SIDES = ("native", "reference")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_projection_onto_a_convex_set(ball, side):
    project = getattr(ball, side)
    for x, r in cases(ball.size):
        y = project(x, r)
        unit = SLACK * (norm(x, 1) + r + (norm(box_center(x), 1) if ball.name == "project_l1_box" else 0))
        assert (ball.excess(y, r) <= unit).all(), "feasible"
        assert ((project(y, r) - y).abs().amax(1) <= unit).all(), "idempotent"
        residual = x - y
        assert (ball.support(residual, r) - dot(residual, y) <= unit * (norm(residual, 2) + r + unit)).all(), "optimal"
        for step in range(4):
            z = ball.point(x, r, step)
            assert (ball.excess(z, r) <= unit).all(), "the test's own points"
            assert (norm(x - y, 2) <= norm(x - z, 2) + unit).all(), "no point is nearer"
            inside = z * 0.999 if ball.name not in ("project_simplex", "project_l1_box") else z
            assert ((project(inside, r) - inside).abs().amax(1) <= SLACK * (norm(z, 1) + r)).all(), "identity inside"


@pytest.mark.parametrize("side", SIDES)
def test_interior_points_come_back_bit_for_bit(side):
    for ball in BALLS[:3]:
        for x, r in cases(ball.size):
            y = getattr(ball, side)(x, 1.5 * ball.size(x) + r)
            assert torch.equal(y, x), ball


@pytest.mark.parametrize("grouping", ["pixel", "value"])
def test_projection_onto_the_l0_ball(grouping):
    """At most k groups are kept, unchanged, and none of those dropped is larger than one kept; ties go to the first."""
    for d in SIZES:
        for kind in KINDS:
            x = rows_of(kind, 7, 3 * d, torch.float64).reshape(7, 3, d)
            groups = d if grouping == "pixel" else 3 * d
            k = torch.tensor([0, 0.9, 1, 2.7, groups // 2, groups, 10 * groups], dtype=torch.float64)
            y = ops.project_l0_ball(x, k, grouping)
            size = x.norm(dim=1) if grouping == "pixel" else x.abs().reshape(7, -1)
            kept = (y != 0).any(1) if grouping == "pixel" else (y != 0).reshape(7, -1)
            assert (kept.sum(1) <= k.floor()).all()
            mask = (kept.unsqueeze(1) if grouping == "pixel" else kept.reshape(7, 3, d)).expand_as(x)
            assert torch.equal(y, torch.where(mask, x, 0))
            nonzero = size > 0
            full = torch.minimum(k.floor(), nonzero.sum(1).double())
            assert torch.equal(kept.sum(1).double(), full), "as many as allowed"
            for row in range(7):
                out = nonzero[row] & ~kept[row]
                if out.any() and kept[row].any():
                    smallest_kept, largest_out = size[row][kept[row]].min(), size[row][out].max()
                    assert smallest_kept >= largest_out
                    if smallest_kept == largest_out:
                        at = size[row] == largest_out
                        assert torch.where(at & kept[row])[0].max() < torch.where(at & out)[0].min(), "ties: the first"
            assert torch.equal(ops.project_l0_ball(y, k, grouping), y), "idempotent"


@pytest.mark.parametrize("p", [1, 2, INF])
@pytest.mark.parametrize("side", SIDES)
def test_projection_onto_a_sphere(p, side):
    project = ops.project_lp_sphere if side == "native" else lambda x, p, r: ref.project_lp_sphere(x, 0.0, r, p)
    for x, r in cases(lambda x: norm(x, p) + 0.5):
        y = project(x, p, r)
        unit = SLACK * (norm(x, 1) + r)
        assert ((norm(y, p) - r).abs() <= unit).all(), "on the sphere"
        assert (norm(x - y, 2) >= (norm(x, p) - r).abs() / x.shape[1] ** 0.5 - unit).all()
        for step in range(6):
            for z in (ball_points(x, p, r, step, True), y + 0.1 * ball_points(x, p, r, step, True)):
                z = project(z, p, r) if step % 2 else z * (r / norm(z, p)).nan_to_num(0, 0).unsqueeze(1)
                on = (norm(z, p) - r).abs() <= unit
                assert ((norm(x - y, 2) <= norm(x - z, 2) + unit) | ~on).all(), "no point of the sphere is nearer"


PROX_NORMS = {"prox_l1": (1, INF), "prox_l2": (2, 2), "prox_linf": (INF, 1)}


@pytest.mark.parametrize("name", PROX_NORMS)
@pytest.mark.parametrize("side", SIDES)
def test_prox_of_a_norm(name, side):
    p, conjugate = PROX_NORMS[name]
    prox = getattr(ops, name) if side == "native" else lambda x, lam: getattr(ref, name)(x, 0.0, lam)
    for x, lam in cases(lambda x: norm(x, conjugate)):
        y = prox(x, lam)
        unit = SLACK * (norm(x, 1) + lam)
        subgradient = x - y
        assert (norm(subgradient, conjugate) <= lam + unit).all()
        assert (
            (dot(subgradient, y) - lam * norm(y, p)).abs()
            <= SLACK * x.shape[1] * (lam * norm(y, p) + 1) * (1 + norm(x, 2))
        ).all()
        objective = lambda u: lam * norm(u, p) + (u - x).square().sum(1) / 2  # noqa: B023, E731
        for step in range(4):
            for size in (1e-3, 1.0):
                u = y + size * norm(x, 2).unsqueeze(1) * ball_points(
                    x, 2, torch.ones(7, dtype=torch.float64), step, step % 2 == 0
                )
                assert (objective(y) <= objective(u) + unit * (1 + norm(x, 2))).all(), "no point has a lower objective"


@pytest.mark.parametrize("by", ["value", "l2", "max"])
def test_prox_of_a_count(by):
    """Each value (pixel) by itself is kept or dropped, whichever costs less; the pixel's largest value decides for by="max"."""
    for x, _ in cases(lambda x: norm(x, 1)):
        lam = torch.tensor([0, 1e-9, 0.01, 0.3, 1.0, 3.0, 1e9], dtype=torch.float64)
        if by == "value":
            y, cost_out = ops.prox_l0(x, lam), x.square() / 2
            kept, wanted = y != 0, x
        else:
            x = x.unsqueeze(1) * torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64).reshape(1, 3, 1)
            y = ops.prox_l0_group(x, lam, by)
            cost_out = (x.square().sum(1) if by == "l2" else x.square().amax(1)) / 2
            kept, wanted = (y != 0).any(1), x
        gain = cost_out - lam.unsqueeze(1)
        clear = gain.abs() > 1e-14 * (cost_out + lam.unsqueeze(1))
        assert torch.equal(kept & clear, (gain > 0) & clear)
        assert torch.equal(y, torch.where(kept if by == "value" else kept.unsqueeze(1), wanted, 0))


@pytest.mark.parametrize("p", [1, 1.001, 1.2, 1.5, 2, 3, 7.5, 100, 1e6, INF])
@pytest.mark.parametrize("side", SIDES)
def test_dual_direction_attains_hoelders_bound(p, side):
    """‖v‖_p = 1 and ⟨v, z⟩ = ‖z‖_q; a zero row stays zero. The power q − 1 = 1000 costs 1000 u."""
    direction = ops.dual_normalize if side == "native" else ref.dual_normalize
    q = INF if p == 1 else (1.0 if p == INF else p / (p - 1))
    for x, _ in cases(lambda x: norm(x, 1)):
        v = direction(x, p)
        some = norm(x, 1) > 0
        scale = x.abs().amax(1, keepdim=True).clamp(min=1e-300)
        assert ((norm(v, p)[some] - 1).abs() <= SLACK).all() or p == INF
        assert (norm(v, INF)[some] <= 1 + SLACK).all()
        value = norm(x / scale, q)
        assert ((dot(v, x / scale) - value).abs() <= SLACK * value).all()
        assert not v[~some].any()
        if p == 1:
            assert torch.equal(v != 0, (x.abs() == x.abs().amax(1, keepdim=True)) & (x != 0))


@pytest.mark.parametrize("d", [1, 2, 151])
def test_norms_are_those_of_float64(d):
    for kind in KINDS:
        x = rows_of(kind, 7, d, torch.float64)
        for name in ("l0", "l1", "l2", "linf"):
            assert torch.allclose(ops.lp_norm(x, name), row_norm(x, name), rtol=1e-13, atol=0)
    x = rows_of("ties", 5, 12, torch.float64).reshape(5, 3, 2, 2)
    assert torch.equal(ops.lp_norm(x, 0, "pixel"), row_norm(x, "l0", 3))


def test_power_iteration_converges_to_the_operator_norm():
    """On J = diag(3, 2, 1) rotated the value rises to the largest singular value, for p = q = 2; for p = 1, q = 2 to the largest column."""
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    J = rotation @ torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)) @ rotation.T
    v = torch.tensor([0.5, 0.1, 0.3], dtype=torch.float64)
    for _ in range(100):
        u = ops.power_iteration_step(J @ v, 2)
        v, _, change = ops.power_iteration_step(J.T @ u.direction, 2, previous=v)
    assert u.value.item() == pytest.approx(3, abs=1e-12)
    assert change.item() < 1e-12
    column = J[:, :1].expand(3, 3).T.contiguous()  # value of p = ∞ is the l1 norm of a row, and so on: Hölder's pairs
    for p, q in ((1, INF), (2, 2), (INF, 1)):
        assert torch.allclose(ops.power_iteration_step(column, p).value, norm(column, q))

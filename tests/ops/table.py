"""The row ops in one table: how each is called, its float64 reference, and how far rounding may take it from there.

Every op is brought to one form, ``run(x, value)`` → tensors with a row each: x is (N, D); the other tensors that an op takes are made
from the shape of x by ``spread``, the same numbers in every row, so that a row's result must not depend on its batch.

Rounding. u is the unit roundoff of the arithmetic (float32, or float64 for float64), a = ``additions`` the longest chain of additions in
a sum over a row: blocks of 1024 elements in at least 16 partial sums (4 chains of SSE vectors), a rest of up to 1023 in 4, the
blocks in float64; on a GPU at most 147 a thread, then float64. So a sum of terms of one sign has a relative error of (a + 2) u. A bound
is given before the result is rounded to its storage dtype; ``check`` adds that rounding. None: the result must be exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from oracles import UNIT, project_l1_ball, project_l1_box, smallest, threshold
from torch import Tensor

from pyrobust import ops
from pyrobust.ops import PrimalDualState, SigmaZeroState, StepOptions
from pyrobust.ops import _reference as ref
from pyrobust.ops import _reference_steps as steps

WIDE = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INF = math.inf
Value = float | Tensor | None


def spread(x: Tensor, low: float, high: float, phase: float = 0.0) -> Tensor:
    """Numbers in (low, high) spread evenly, like x; every row has the same."""
    return _spread(x.shape[1], x.dtype, x.device, low, high, phase).expand(x.shape)


@cache  # so that nothing is copied to the device while a CUDA graph is captured
def _spread(d: int, dtype: torch.dtype, device: torch.device, low: float, high: float, phase: float) -> Tensor:
    place = torch.arange(1, d + 1, dtype=torch.float64)
    return (low + (high - low) * ((place * 0.6180339887498949 + phase) % 1)).to(dtype).to(device)


def additions(d: int) -> int:
    return min(d, 1023) // 4 + 8


def unit(x: Tensor) -> float:
    return UNIT[WIDE[x.dtype]]


def values(value: Value, x: Tensor) -> Tensor:
    """The value of each row as the op sees it, in float64."""
    assert value is not None
    rows = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device=x.device)
    return rows.to(WIDE[x.dtype]).double().reshape(-1).expand(len(x))


def most(x: Tensor) -> Tensor:
    return x.double().abs().amax(1, keepdim=True)


def power_of_two(x: Tensor) -> Tensor:
    """Of the size of a row, (N, 1): norms of the scaled row neither overflow nor lose digits to the logarithms of powers."""
    return 2.0 ** most(x).log2().ceil().clamp(-900, 900).nan_to_num(0, 0, 0)


@dataclass(frozen=True)
class Op:
    """One row of the table.

    Attributes:
        run: (x, value) → tensors, one row each.
        reference: the same in float64, independent of the native code.
        bound: (x, value, wanted) → largest error of each output, or None for exactness.
        scale: (x in float64) → a value of each row near which the op does something.
        doubtful: (x, value) → (N, D) where a decision is within rounding, so that either outcome is right.
        in_place: (x, value) → x, or None.
        torch_op: its registered name.
        grad: whether it is differentiable in x.
    """

    name: str
    run: Callable[[Tensor, Value], tuple[Tensor, ...]]
    reference: Callable[[Tensor, Value], tuple[Tensor, ...]]
    bound: Callable[[Tensor, Value, tuple[Tensor, ...]], tuple[Tensor | float | None, ...]]
    scale: Callable[[Tensor], Tensor] | None = None
    doubtful: Callable[[Tensor, Value], Tensor] | None = None
    in_place: Callable[[Tensor, Value], Tensor] | None = None
    torch_op: str = ""
    grad: bool = False
    spreads: bool = True  # NaN in an element reaches the whole row

    def __str__(self) -> str:
        return self.name


def check(op: Op, x: Tensor, value: Value, got: tuple[Tensor, ...], context: str = "") -> None:
    """Compare with the float64 reference under the derived bound; NaN and overflow must agree."""
    want = op.reference(x, value)
    bounds = op.bound(x, value, want)
    doubtful = None if op.doubtful is None else op.doubtful(x, value)
    assert len(got) == len(want)
    for i, (g, w, bound) in enumerate(zip(got, want, bounds, strict=True)):
        g, w = g.detach().double().reshape(len(x), -1), w.reshape(len(x), -1)
        dtype = got[i].dtype
        if not dtype.is_floating_point or bound is None:
            allowed = torch.zeros_like(w)
        else:
            bound = bound.reshape(len(x), -1) if isinstance(bound, Tensor) else bound
            allowed = bound + UNIT[dtype] * (w.abs() + bound) + smallest(dtype)
        same = (g == w) | (g.isnan() & w.isnan()) | ((g - w).abs() <= allowed)
        if dtype.is_floating_point:  # beyond the range of the storage dtype the nearest is ±Inf
            same |= g.isinf() & (g.sign() == w.sign()) & (w.abs() + allowed >= torch.finfo(dtype).max)
        if doubtful is not None:
            same |= doubtful if same.shape == doubtful.shape else doubtful.any(1, keepdim=True)
        if not same.all():
            r, c = (~same).nonzero()[0].tolist()
            v = None if value is None else values(value, x)[r].item()
            raise AssertionError(
                f"{op.name} {context} {x.dtype} {tuple(x.shape)} value {v}: output {i} [{r}, {c}]: got {g[r, c].item()!r}, want "
                f"{w[r, c].item()!r} ± {torch.as_tensor(allowed).expand_as(w)[r, c].item():.3g}; {int((~same).sum())} differ"
            )


# ---- bounds ----


def relative(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    """A product with a factor that comes from one sum over the row, and its neighbours: (a + 8) u."""
    return ((additions(x.shape[1]) + 8) * unit(x) * want[0].abs(),)


def exact(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    return (None,) * len(want)


def stored(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    """Exact but for the rounding to storage."""
    return (0.0,) * len(want)


def one_rounding(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    return (unit(x) * want[0].abs(),)


def by_threshold(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    """(|x| − τ)₊: τ comes from a sum S of the active excesses, so its error is at most (a + 6) u S / active, and S ≤ 2 mass but where the mass is
    tiny: there S is what an earlier such sum left, (a + 6) u of the largest magnitude. So 2 (a + 6) u max y + ((a + 6) u)² max 2 |x|.

    τ itself is held as a float64 (twice in its life rounded), or as the sum of two float32: 2⁻⁵⁰ of the largest magnitude.
    """
    a = (additions(x.shape[1]) + 6) * unit(x)
    return (2 * a * most(want[0]) + (2.0**-50 + 2 * a * a) * most(x),)


def by_clamp(x: Tensor, value: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
    """clamp(x, ±τ), the complement of ``by_threshold``; τ is rounded to the working precision."""
    a = (additions(x.shape[1]) + 6) * unit(x)
    return (2 * a * most(x.double() - want[0]) + (2.0**-50 + 2 * a * a) * most(x) + unit(x) * want[0].abs(),)


def near(size: Tensor, limit: Tensor, slack: float) -> Tensor:
    return (size - limit).abs() <= slack * limit


# ---- the table ----


def channels(x: Tensor) -> int:
    """Planes that a row of x is seen as by the pixel ops: 3 where they fit, so that D = 2 is 2 values of one pixel."""
    d = x.shape[1]
    return 3 if d % 3 == 0 else (2 if d == 2 else 1)


def planes(x: Tensor) -> Tensor:
    return x.unflatten(1, (channels(x), -1))


def _simple(name: str, reference, bound, scale, *extra, spreads: bool = True) -> Op:
    """An op of (x, value, *extra): the public function and its reference, of the same name."""
    call, in_place = getattr(ops, name), getattr(ops, f"{name}_", None)
    label = "-".join([name, *(str(e) for e in extra)])
    return Op(
        label,
        lambda x, v: (call(x, v, *extra),),
        lambda x, v: (reference(x.double(), 0.0, values(v, x)),),
        bound,
        scale,
        in_place=None if in_place is None else lambda x, v: in_place(x, v, *extra),
        torch_op=name,
        grad=True,
        spreads=spreads,
    )


def _l1(x: Tensor) -> Tensor:
    return x.abs().sum(1)


def _l2(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, 2, dim=1)


def _linf(x: Tensor) -> Tensor:
    return x.abs().amax(1)


def _groups(x: Tensor) -> Tensor:
    return torch.full((len(x),), float(x.shape[1] // channels(x)), dtype=torch.float64, device=x.device)


def _count(x: Tensor) -> Tensor:
    return torch.full((len(x),), float(x.shape[1]), dtype=torch.float64, device=x.device)


def _half_square(x: Tensor) -> Tensor:
    return x.abs().amax(1).square() / 8


def _group_norms(x: Tensor) -> Tensor:
    return ref.group_norms(x.double(), channels(x))


def _pixels(function: Callable[..., Tensor], *extra) -> Callable[[Tensor, Value], tuple[Tensor, ...]]:
    return lambda x, v: (function(planes(x), v, *extra).reshape(x.shape),)


def _l0_pixel() -> Op:
    def doubtful(x: Tensor, v: Value) -> Tensor:
        """The k-th and the next group norm are closer than rounding: 4 u for each of the C − 1 hypotenuses."""
        norms, k = _group_norms(x), values(v, x).floor().clamp(1, 2**40).long()
        ordered = norms.sort(1, descending=True).values
        level = ordered.gather(1, (k - 1).clamp(max=norms.shape[1] - 1).unsqueeze(1))
        either = near(norms, level, 8 * channels(x) * unit(x))
        return (either & (either.sum(1, keepdim=True) > 1)).repeat(1, channels(x)) & (channels(x) > 1)

    return Op(
        "project_l0_ball-pixel",
        _pixels(ops.project_l0_ball),
        lambda x, v: (ref.project_l0_ball(x.double(), 0.0, values(v, x), channels(x)),),
        exact, _groups, doubtful,
        in_place=lambda x, v: ops.project_l0_ball_(planes(x), v), torch_op="project_l0_ball", grad=True,
    )  # fmt: skip


def _l0_group(by: str) -> Op:
    def doubtful(x: Tensor, v: Value) -> Tensor:
        size = _group_norms(x) if by == "l2" else x.double().abs().reshape(len(x), channels(x), -1).amax(1)
        return near(size, (2 * values(v, x)).sqrt().unsqueeze(1), 8 * channels(x) * unit(x)).repeat(1, channels(x))

    return Op(
        f"prox_l0_group-{by}",
        _pixels(ops.prox_l0_group, by),
        lambda x, v: (ref.prox_l0_group(x.double(), 0.0, values(v, x), channels(x), int(by == "max")),),
        exact, _half_square, doubtful,
        in_place=lambda x, v: ops.prox_l0_group_(planes(x), v, by), torch_op="prox_l0_group", grad=True, spreads=False,
    )  # fmt: skip


BOX = (0.0, 1.0)


def _box_bound(x: Tensor, center: Tensor, moved: Tensor, far: Tensor) -> Tensor:
    """center + (|z| − τ)₊ in the box: as ``by_threshold`` for the move, 2 u for z = x − center, rounded, and 2 u for the final sum."""
    a = 2 * (additions(x.shape[1]) + 6)
    return a * unit(x) * most(moved) + 4 * unit(x) * far + 2 * unit(x) * center.double().abs()


def _l1_box() -> Op:
    def center(x: Tensor) -> Tensor:
        return spread(x, 0, 1)

    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        c, r = center(x).double(), values(v, x)
        y = project_l1_box(x.double().nan_to_num(0, 0, 0), c, r.clamp(min=0), *BOX)
        return (y.masked_fill(~(x.isfinite().all(1) & (r >= 0)).unsqueeze(1), math.nan),)

    def bound(x: Tensor, v: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
        c = center(x)
        return (_box_bound(x, c, want[0] - c.double(), most(x.double() - c.double())),)

    return Op(
        "project_l1_box",
        lambda x, v: (ops.project_l1_box(x, center(x), v, BOX),),
        reference, bound, lambda x: torch.full((len(x),), x.shape[1] / 8, dtype=torch.float64, device=x.device),
        in_place=lambda x, v: ops.project_l1_box_(x, center(x), v, BOX), torch_op="project_l1_box", grad=True,
    )  # fmt: skip


def _sphere(p: float) -> Op:
    def sphere(x: Tensor, r: Tensor) -> Tensor:
        y = ref.project_lp_sphere(x, 0.0, r, p)
        return torch.where((_l1(x) > r).unsqueeze(1), project_l1_ball(x, r), y) if p == 1 else y

    scale, bound = {1: (_l1, by_threshold), 2: (_l2, relative), INF: (_linf, stored)}[p]
    return Op(
        f"project_lp_sphere-{p}",
        lambda x, v: (ops.project_lp_sphere(x, p, v),),
        lambda x, v: (sphere(x.double(), values(v, x)),),
        bound, scale, torch_op="project_lp_sphere", grad=True,
    )  # fmt: skip


def _direction_bound(z: Tensor, p: float, want: Tensor) -> Tensor:
    """Of dual_normalize: powers double the error of their base q − 1 times, and that of the exponent log |z| times."""
    if p in (1, INF):
        return unit(z) * want.abs()
    if p == 2:
        return (additions(z.shape[1]) + 8) * unit(z) * want.abs()
    q = p / (p - 1)
    ratio = (z.double().abs() / most(z)).clamp(min=1e-300)
    return unit(z) * want.abs() * (
        additions(z.shape[1]) + 8 + 3 * q + 2 * (q - 1) * ratio.log().abs()
    ).nan_to_num() + smallest(WIDE[z.dtype])


def _dual(p: float) -> Op:
    return Op(
        f"dual_normalize-{p}",
        lambda x, v: (ops.dual_normalize(x, p),),
        lambda x, v: (ref.dual_normalize(x.double(), p),),
        lambda x, v, want: (_direction_bound(x, p, want[0]),),
        in_place=lambda x, v: ops.dual_normalize_(x, p),
        torch_op="dual_normalize", grad=p not in (1, INF), spreads=p != INF,
    )  # fmt: skip


def _norm(norm: float, grouping: str = "value") -> Op:
    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        """Scaled by a power of two, so that float64 squares stay in range."""
        if norm == 0:
            return (ref.lp_norm(x.double(), 0, channels(x) if grouping == "pixel" else 1),)
        scale = power_of_two(x)
        return (ref.lp_norm(x.double() / scale, norm, 1) * scale.squeeze(1),)

    return Op(
        f"lp_norm-{norm}-{grouping}",
        lambda x, v: (ops.lp_norm(planes(x) if grouping == "pixel" else x, norm, grouping),),
        reference, exact if norm in (0, INF) else relative, torch_op="lp_norm", grad=norm != 0,
    )  # fmt: skip


def _power(p: float, alpha: float = INF, previous: bool = True) -> Op:
    def before(x: Tensor) -> Tensor | None:
        return spread(x, -1, 1) if previous else None

    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        b, scale = before(x), power_of_two(x)
        direction, _, change = ref.power_iteration_step(x.double(), None if b is None else b.double(), p, alpha)
        q = 1.0 if p == INF else (INF if p == 1 else p / (p - 1))
        return direction, ref.lp_norm(x.double() / scale, q, 1) * scale.squeeze(1), change

    def bound(x: Tensor, v: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
        """With a finite α also previous + α z: 2 u of its largest term in each element, before the projection; the stored direction enters change."""
        direction, value, change = want
        u, a = unit(x), additions(x.shape[1])
        if alpha == INF:
            at, stored = _direction_bound(x, p, direction), 0.0
        else:
            moved = spread(x, -1, 1).double().abs() + alpha * x.double().abs()
            size = {1: moved.sum(1), 2: _l2(moved), INF: torch.ones(len(x), dtype=torch.float64, device=x.device)}[
                p
            ].unsqueeze(1)
            shrink = (1 / size).clamp(max=1) if p == 2 else 1.0
            at = 4 * u * most(moved) * shrink + 2 * (a + 8) * u * most(direction)
            stored = UNIT[x.dtype]
        change_bound = (a + 8) * u * change + _l2((at + stored * direction.abs()) * torch.ones_like(direction))
        return at, (2 * a + 16) * u * value, change_bound

    def scale_of_ties(x: Tensor, v: Value) -> Tensor:
        """For p = ∞ and a finite α the first of the largest elements moves: rounding may break or make a tie."""
        moved = (spread(x, -1, 1).double() + alpha * x.double()).abs()
        close = near(moved, moved.amax(1, keepdim=True), 4 * unit(x)) | near(moved, torch.ones_like(moved), 4 * unit(x))
        return close & (close.sum(1, keepdim=True) > 1)

    return Op(
        f"power_iteration_step-{p}" + ("" if alpha == INF else f"-alpha{alpha}") + ("" if previous else "-first"),
        lambda x, v: tuple(ops.power_iteration_step(x, p, before(x), alpha)),
        reference, bound, doubtful=scale_of_ties if p == INF and alpha < INF else None, torch_op="power_iteration_step",
    )  # fmt: skip


def _pgd(p: float, sparsity: float = 0.0) -> Op:
    step = 0.3

    def point(x: Tensor) -> tuple[Tensor, Tensor]:
        """(adv, inputs)."""
        inputs = spread(x, 0, 1)
        return (inputs + spread(x, -0.05, 0.05, 0.4)).clamp(0, 1), inputs

    def run(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        adv, inputs = point(x)
        return (ops.pgd_step(adv, x, inputs, p, v, step, sparsity=sparsity),)

    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        adv, inputs = (t.double() for t in point(x))
        r, g, length = values(v, x), x.double(), values(step, x).unsqueeze(1)
        if p != 1:
            adv = adv.clone()
            steps.pgd_step(adv, g, inputs, 0.0, r, length[0, 0].item(), None, p, 0.0, *BOX)
            return (adv,)
        size = g.abs().nan_to_num(0, 0, 0)
        k = 1 if sparsity == 0 else max(1, int(sparsity * x.shape[1] + 0.5))
        level = size.sort(1, descending=True).values[:, k - 1 : k]
        moved = (size >= level) & (size > 0)
        target = adv + length * g.nan_to_num().sign() * moved / moved.sum(1, keepdim=True).clamp(min=1)
        y = project_l1_box(target, inputs, r.clamp(min=0), *BOX)
        return (y.masked_fill(~(x.isfinite().all(1) & (r >= 0)).unsqueeze(1), math.nan),)

    def bound(x: Tensor, v: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
        """Everything is of order 1 + step: 4 u for adv + step · direction − inputs; for l2 two norms, each of relative error (a + 8) u."""
        inputs = point(x)[1]
        eight = 8 * unit(x) * (1 + step)
        if p == INF:
            return (eight,)
        moved = want[0] - inputs.double()
        if p == 1:
            return (_box_bound(x, inputs, moved, torch.full_like(most(x), 1 + step)) + eight,)
        direction = ref.dual_normalize(x.double(), 2).abs()
        return (2 * (additions(x.shape[1]) + 8) * unit(x) * (moved.abs() + step * direction) + eight,)

    return Op(
        f"pgd_step-{p}" + (f"-sparse{sparsity}" if sparsity else ""), run, reference, bound,
        lambda x: {1: 0.3, 2: 0.2, INF: 0.1}[p] * torch.ones(len(x), dtype=torch.float64, device=x.device),
        torch_op="pgd_step_", spreads=p != INF,
    )  # fmt: skip


PRIMAL_DUAL = {
    "pdgd": (2.0, 2.0, 0),
    "linf": (1.0, INF, 3),
    "l2": (2.0, 2.0, 1),
    "l1": (INF, 1.0, 2),
    "l0": (INF, 0.0, 4),
}


def primal_dual_state(x: Tensor, ratio: Value) -> tuple[PrimalDualState, Tensor, Tensor]:
    """A state in the middle of an attack, its inputs and margins; the sign of a row's first gradient says whether it is adversarial,
    that of its last whether a nearer point is known.
    """
    inputs = spread(x, 0, 1)
    state = PrimalDualState.start(inputs, 1.0)
    state.adv.copy_((inputs + spread(x, -0.2, 0.2, 0.3)).clamp(0, 1))
    wide = x.to(WIDE[x.dtype])
    state.exp_avg.copy_(spread(wide, -0.1, 0.1, 0.7))
    state.exp_avg_sq.copy_(spread(wide, 0, 0.01, 0.2))
    state.distance.fill_(0.75)
    state.best_distance.copy_(torch.where(x[:, -1:].sum(1) > 0, 0.5, INF))
    state.dual.fill_(0.3)
    lam = torch.as_tensor(0.5 if ratio is None else ratio, dtype=WIDE[x.dtype], device=x.device)
    state.dual_average.copy_(lam)
    margin = torch.where(x[:, :1].sum(1) > 0, 1.0, -1.0).to(WIDE[x.dtype])
    return state, inputs, margin


def _primal_dual(
    norm: str, adaptive: bool = True, grouping: str = "value", step_size: float = 0.1, damping: float = 0.0
) -> Op:
    exponent, measure, prox = PRIMAL_DUAL[norm]
    options = StepOptions(
        step_size, 0.05, corrections=(0.75, 0.3), betas=(0.5, 0.999), adaptive=adaptive, normalize=exponent, dual_limit=5.0,
        dual_momentum=0.25, damping=damping, grouping=grouping,
    )  # fmt: skip

    def planes_of(x: Tensor) -> int:
        return channels(x) if grouping == "pixel" else 1

    def shaped(x: Tensor, t: Tensor) -> Tensor:
        return planes(t) if grouping == "pixel" and t.shape == x.shape else t

    def run(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        state, inputs, margin = primal_dual_state(x, v)
        state = PrimalDualState(*(shaped(x, t) for t in state.tensors()))
        x_shaped, inputs = shaped(x, x), shaped(x, inputs)
        if norm == "pdgd":
            ops.pdgd_step_(state, inputs, x_shaped, margin, options)
        else:
            ops.pdpgd_step_(state, inputs, x_shaped, margin, norm, options)
        return tuple(t.reshape(x.shape) if t.ndim > 1 else t for t in state.tensors())

    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        state, inputs, margin = primal_dual_state(x, v)
        state = PrimalDualState(*(t.double() for t in state.tensors()))
        constants = [step_size, exponent, *options.betas, *options.corrections, 0.05, 5.0, 0.25, damping, 0.0, 1.0]
        steps.primal_dual_step(
            *state.tensors(), inputs.double(), x.double(), margin.double(), planes_of(x), prox, int(adaptive), constants
        )
        return state.tensors()

    def bound(x: Tensor, v: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
        """In units of the box: the step m̂ / w has a relative error of (a + 20) u (norm of the gradient, moments, root), and is at
        most ``far``; a level or size of a prox solves an equation of two such sums to 2⁻²² (2⁻⁵⁰), and ρ / w is at most ``far`` or sets
        the element to zero.
        """
        adv, m, v_new = want[:3]
        a = (additions(x.shape[1]) + 20) * unit(x)
        old = primal_dual_state(x, v)[0].exp_avg_sq.double()
        rounded = (
            unit(x) * (v_new - 0.999 * old).clamp(min=0) / (1 - 0.999)
        )  # 1 − β₂ formed in working precision, times g²
        solved = 2.0**-22 if unit(x) == UNIT[torch.float32] else 2.0**-50
        w = ((v_new / 0.3).sqrt() + 1e-8 if adaptive else torch.ones_like(v_new)) / step_size
        far = (m / 0.75 / w).abs().clamp(max=1e300)
        reach = torch.minimum(far, 2 + 0 * far)  # the box stops it
        at = (a + adaptive * rounded / v_new.clamp(min=1e-300)) * (reach + far * (far < 4)) + 8 * unit(x) + solved
        if norm in ("linf", "l2"):  # the level is a mean of the errors of its elements, and solved as a sum is
            at = at + at.amax(1, keepdim=True) + 2 * a + solved
        elif norm == "l1":
            at = at + 2 * a
        total = {"l1": at.sum(1), "linf": at.amax(1)}.get(norm, _l2(at))
        distance = None if norm == "l0" else total + a * want[5]
        gradient = a * (m.abs() + 1) + 8 * unit(x)
        return (
            at, gradient * torch.ones_like(m), 2 * a * v_new.abs() + 2 * a * 0.001 + rounded, None, None,
            distance, 4 * unit(x), 8 * unit(x),
        )  # fmt: skip

    def doubtful(x: Tensor, v: Value) -> Tensor:
        """Groups whose saving ½ Σ w r² is within rounding of ρ."""
        state, inputs, margin = primal_dual_state(x, v)
        state = PrimalDualState(*(t.double() for t in state.tensors()))
        rho = (state.dual_average / (1 - state.dual_average)).unsqueeze(1)
        free = replace(options)
        constants = [step_size, exponent, *free.betas, *free.corrections, 0.05, 5.0, 0.25, damping, 0.0, 1.0]
        state.dual_average.fill_(0)  # ρ = 0: the point before the prox
        steps.primal_dual_step(
            *state.tensors(), inputs.double(), x.double(), margin.double(), planes_of(x), prox, int(adaptive), constants
        )
        w = ((state.exp_avg_sq / 0.3).sqrt() + 1e-8 if adaptive else torch.ones_like(state.exp_avg_sq)) / step_size
        saving = (w * (state.adv - inputs.double()).square()).reshape(len(x), planes_of(x), -1).sum(1)
        slack = 4 * (additions(x.shape[1]) + 40) * unit(x)
        return near(saving, 2 * rho, slack).repeat(1, planes_of(x))

    return Op(
        ("pdgd_step" if norm == "pdgd" else f"pdpgd_step-{norm}") + ("" if adaptive else "-plain")
        + f"-{grouping}" * (norm == "l0") + "-damped" * (damping > 0),
        run, reference, bound, lambda x: torch.full((len(x),), 0.4, dtype=torch.float64, device=x.device),
        doubtful if norm == "l0" else None, torch_op="primal_dual_step_", spreads=False,
    )  # fmt: skip


def _sigma_zero(grouping: str) -> Op:
    """A step in the middle of an attack; the sign of a row's first gradient says whether it is adversarial."""
    step_size, sigma, threshold, threshold_step = 0.1, 0.01, 0.1, 0.05
    betas, corrections = (0.9, 0.99), (0.75, 0.3)

    def groups(x: Tensor) -> int:
        return channels(x) if grouping == "pixel" else 1

    def shaped(x: Tensor, t: Tensor) -> Tensor:
        return planes(t) if grouping == "pixel" and t.ndim > 1 else t

    def state_of(x: Tensor) -> tuple[SigmaZeroState, Tensor, Tensor]:
        inputs, wide = spread(x, 0, 1), x.to(WIDE[x.dtype])
        state = SigmaZeroState.start(inputs, threshold)
        delta = spread(wide, -0.2, 0.2, 0.3)
        state.delta.copy_(torch.minimum(torch.maximum(delta, -inputs.to(wide.dtype)), 1 - inputs.to(wide.dtype)))
        state.exp_avg.copy_(spread(wide, -0.1, 0.1, 0.7))
        state.exp_avg_sq.copy_(spread(wide, 0, 0.01, 0.2))
        return state, inputs, x[:, :1].sum(1) > 0

    def run(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        state, inputs, adversarial = state_of(x)
        state = SigmaZeroState(*(shaped(x, t) for t in state.tensors()))
        ops.sigma_zero_step_(
            state, shaped(x, inputs), shaped(x, x), adversarial, step_size=step_size, sigma=sigma,
            threshold_step=threshold_step, betas=betas, corrections=corrections, grouping=grouping,
        )  # fmt: skip
        return tuple(t.reshape(x.shape) if t.ndim > 1 else t for t in state.tensors())

    def stepped(x: Tensor, *, thresholded: bool) -> SigmaZeroState:
        state, inputs, adversarial = state_of(x)
        state = SigmaZeroState(*(t.double() for t in state.tensors()))
        if not thresholded:  # τ = 0
            state.threshold.zero_()
        constants = [step_size, sigma, threshold_step * thresholded, *betas, *corrections, *BOX]
        steps.sigma_zero_step(*state.tensors(), inputs.double(), x.double(), adversarial, groups(x), constants)
        return state

    def errors(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the moments and of δ before it is thresholded. A slope h is a sum of two terms over its largest: k u of the terms'
        magnitudes, k = channels + 12 roundings (energy, weight, products, sum, quotient), and as much of the largest.
        """
        u, c = unit(x), groups(x)
        delta, g = state_of(x)[0].delta.double(), x.double()
        energy = delta.reshape(len(x), c, -1).square().sum(1).repeat(1, c) + sigma
        pull = delta * (2 * sigma * c / x.shape[1]) / energy.square()
        largest = most(g + pull).clamp(min=1e-12)
        h, terms = (g + pull).abs() / largest, (g.abs() + pull.abs()) / largest
        off = (c + 12) * u * (terms + h * most(terms))
        state = stepped(x, thresholded=False)
        m, v = state.exp_avg.abs(), state.exp_avg_sq
        first = (1 - betas[0]) * off + 4 * u * (m + (1 - betas[0]) * 2 * h)
        second = (1 - betas[1]) * 2 * h * off + 4 * u * v
        root = (v / corrections[1]).sqrt() + 1e-8
        moved = step_size / corrections[0] * m / root
        # d(1 / √v) / v = ½ v^(−3/2), and where v falls by its whole error √v by no more than that of the error
        far = step_size / corrections[0] * first / root + moved * (second / v.clamp(min=1e-300) + 10 * u)
        return first, second, torch.minimum(far, torch.ones_like(far)) + 6 * u

    def bound(x: Tensor, v: Value, want: tuple[Tensor, ...]) -> tuple[Tensor | float | None, ...]:
        first, second, far = errors(x)
        return far + 2 * unit(x), far, first, second, 2 * unit(x), None

    def doubtful(x: Tensor, v: Value) -> Tensor:
        """Groups whose largest δ is within rounding of τ."""
        c = groups(x)
        size = stepped(x, thresholded=False).delta.abs().reshape(len(x), c, -1)
        slack = errors(x)[2].reshape(len(x), c, -1).amax(1) + 2 * unit(x)
        tau = stepped(x, thresholded=True).threshold.unsqueeze(1)
        return ((size.amax(1) - tau).abs() <= slack).repeat(1, c)

    return Op(
        f"sigma_zero_step-{grouping}", run, lambda x, v: stepped(x, thresholded=True).tensors(), bound, None, doubtful,
        torch_op="sigma_zero_step_", spreads=False,
    )  # fmt: skip


def _seed(targeted: bool = False, follow: bool = False, given: bool = False) -> Op:
    def arguments(x: Tensor) -> tuple:
        wide, n, k = WIDE[x.dtype], len(x), x.shape[1]
        state = PrimalDualState.start(x.new_zeros(n, 1), 1.0)
        state.distance.fill_(0.5)
        state.best_distance.fill_(1.0)
        labels = torch.full((n,), k // 2, device=x.device)
        assert state.distance.dtype == wide
        return labels, torch.full_like(labels, max(k - 1, 0)), state, torch.full_like(labels, k // 3) if given else None

    def run(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        labels, best, state, targets = arguments(x)
        return (*ops.attack_seed(x, labels, best, state, targets, targeted, follow), best)

    def reference(x: Tensor, v: Value) -> tuple[Tensor, ...]:
        labels, best, state, targets = arguments(x)
        seed, margin = steps.attack_seed(
            x.double(), labels, targets, best, state.distance, state.best_distance, targeted, follow
        )
        return seed, margin, best.double()

    return Op(
        "attack_seed" + "-targeted" * targeted + "-follow" * follow + "-given" * given, run, reference,
        lambda x, v, want: (None, unit(x) * want[1].abs(), None), torch_op="attack_seed", spreads=False,
    )  # fmt: skip


SAMPLERS = tuple(
    Op(
        f"sample_lp_ball-{p}",
        lambda x, v, p=p: (
            ops.sample_lp_ball(
                x,
                p,
                1.0 if v is None else v,
                seed=3,
                step=2,
                sample_ids=torch.zeros(len(x), dtype=torch.int64, device=x.device),
            ),
        ),
        lambda x, v: (x,),
        exact,
        torch_op="sample_lp_ball",
        spreads=False,
    )  # fmt: skip
    for p in (1, 2, INF)
)

PROJECTIONS = (
    _simple("project_simplex", lambda x, _, r: (x - threshold(x, r)).clamp(min=0).masked_fill(~x.isfinite().all(1, keepdim=True), math.nan), by_threshold, _l1),
    _simple("project_l1_ball", lambda x, _, r: project_l1_ball(x, r), by_threshold, _l1),
    _simple("project_l2_ball", ref.project_l2_ball, relative, _l2),
    _simple("project_linf_ball", ref.project_linf_ball, stored, _linf, spreads=False),
    _simple("project_l0_ball", lambda x, n, r: ref.project_l0_ball(x, n, r, 1), exact, _count, "value"),
    _l0_pixel(),
    _l1_box(),
    _sphere(1), _sphere(2), _sphere(INF),
)  # fmt: skip
PROXES = (
    replace(
        _simple("prox_l0", ref.prox_l0, exact, _half_square, spreads=False),
        doubtful=lambda x, v: near(x.double().abs(), (2 * values(v, x)).sqrt().unsqueeze(1), 2 * unit(x)),
    ),
    _simple("prox_l1", ref.prox_l1, one_rounding, _linf, spreads=False),
    _simple("prox_l2", ref.prox_l2, lambda x, v, want: ((additions(x.shape[1]) + 8) * unit(x) * x.double().abs(),), _l2),
    _simple("prox_linf", lambda x, _, r: x - project_l1_ball(x, r), by_clamp, _l1),
    _l0_group("l2"), _l0_group("max"),
)  # fmt: skip
DIRECTIONS = tuple(_dual(p) for p in (1, 1.05, 1.5, 2, 3, 1000.0, INF))
MEASURES = (_norm(0), _norm(0, "pixel"), _norm(1), _norm(2), _norm(INF))
POWERS = (
    _power(1), _power(1.5), _power(2), _power(INF), _power(2, previous=False), _power(1, 0.5), _power(2, 0.5), _power(INF, 0.5),
)  # fmt: skip
STEPS = (
    _pgd(1), _pgd(1, 0.05), _pgd(2), _pgd(INF),
    _primal_dual("pdgd"), _primal_dual("linf"), _primal_dual("l2"), _primal_dual("l1"), _primal_dual("l0"),
    _primal_dual("linf", damping=0.2), _primal_dual("l2", damping=0.2), _primal_dual("l1", damping=0.2),
    _primal_dual("l0", grouping="pixel"), _primal_dual("linf", False), _primal_dual("l2", False), _primal_dual("l1", False),
    _seed(), _seed(targeted=True), _seed(follow=True), _seed(given=True),
    _sigma_zero("value"), _sigma_zero("pixel"),
)  # fmt: skip
ROW_OPS = PROJECTIONS + PROXES + DIRECTIONS + MEASURES + POWERS
ALL_OPS = ROW_OPS + STEPS


# ---- inputs ----

KINDS = ("normal", "cauchy", "sorted", "ties", "zeros", "equal", "one", "huge", "largest", "tiny", "subnormal")


def rows_of(kind: str, n: int, d: int, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
    """(n, d) rows of one kind; every kind is finite in every dtype."""
    g = torch.Generator().manual_seed(seed + 1000 * d + n)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    info = torch.finfo(dtype)
    half = dtype == torch.float16
    if kind == "cauchy":
        x = (torch.rand(n, d, generator=g, dtype=torch.float64) * math.pi).tan().clamp(-3e4, 3e4)
    elif kind == "sorted":
        x = x.sort(1, descending=True).values
    elif kind == "ties":
        x = (x * 2).round() / 2
    elif kind == "zeros":
        x = torch.zeros_like(x)
    elif kind == "equal":
        x = x[:, :1].expand(n, d)
    elif kind == "one":
        x = torch.zeros_like(x).index_fill(1, torch.tensor([d // 2]), 1.5) * x[:, :1]
    elif kind == "huge":
        x = x * (1e3 if half else 1e30)
    elif (
        kind == "largest"
    ):  # half the largest number, for pixel norms and τ; in float64 what the squares of the reference allow
        x = (x / x.abs().amax(1, keepdim=True)) * info.max * (0.5 if dtype != torch.float64 else 1e-160)
    elif kind == "tiny":
        x = x * (1e-4 if half else 1e-30)
    elif kind == "subnormal":
        x = x * (info.smallest_normal / 8 if dtype != torch.float64 else 1e-145)
    return x.to(dtype).to(device)


FRACTIONS = (0.0, 1e-30, 1e-6, 0.1, 0.5, 0.999, 1.5, 1e6)


def values_for(op: Op, x: Tensor) -> Tensor | None:
    """One value a row, from nothing to far beyond the size of the row; for ratios of the primal-dual steps inside (0, 1)."""
    if op.scale is None:
        return None
    fractions = torch.tensor(FRACTIONS, dtype=torch.float64).repeat(len(x))[: len(x)].to(x.device)
    value = op.scale(x.double()) * fractions
    if op.torch_op == "primal_dual_step_":
        value = value.clamp(1e-6, 0.9)
    wide = WIDE[x.dtype]
    return value.clamp(max=torch.finfo(wide).max / 4).to(wide)

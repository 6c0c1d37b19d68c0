"""The row ops to time: what to call, in what state, and the fewest bytes that each must move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.ops import _reference as ref
from pyrobust.ops import _reference_steps as ref_steps

SIGMA = 0.05  # x ~ N(0, SIGMA²)
MEAN_SIZE = SIGMA * math.sqrt(2 / math.pi)  # mean of |x|


@dataclass
class Work:
    """An op bound to its inputs.

    Attributes:
        run: the public function.
        reference: the same in plain PyTorch, a function of ``args``; None: ``why`` says why.
        reset: puts back the state that ``run`` and ``reference`` change.
        replays: whether its native call may be made again by itself; not where it uses memory that the function frees.
    """

    run: Callable[[], Any]
    reference: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    why: str = ""
    reset: Callable[[], object] | None = None
    replays: bool = True


@dataclass(frozen=True)
class Case:
    """An op. ``moves``: the fewest tensors like x that it must read, plus those that it must write."""

    name: str
    moves: int
    build: Callable[[Tensor], Work]


def sort_projection(x: Tensor, radius: float) -> Tensor:
    """The l1 projection as most libraries have it: sort, cumulative sum, threshold (Duchi et al. 2008)."""
    size = x.abs()
    ordered = size.sort(dim=1, descending=True).values
    levels = (ordered.cumsum(1) - radius) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    count = (ordered > levels).sum(1, keepdim=True)
    return (size - levels.gather(1, count - 1).clamp(min=0)).clamp(min=0).copysign(x)


def l1_radius(x: Tensor) -> float:
    """A tenth of the mean l1 norm of a row of x, in expectation."""
    return 0.1 * MEAN_SIZE * x[0].numel()


def _row_op(
    function: Callable[..., Tensor], reference: Callable[..., Tensor], value: Callable[[Tensor], float], *rest: Any
) -> Callable[[Tensor], Work]:
    """Ops of (x, a value a row); ``rest`` goes to the reference alone."""

    def build(x: Tensor) -> Work:
        number = value(x)
        return Work(lambda: function(x, number), reference, (x.flatten(1), number, None, *rest))

    return build


def _pixels(
    function: Callable[..., Tensor], reference: Callable[..., Tensor], value: Callable[[Tensor], float], *rest: Any
) -> Callable[[Tensor], Work]:
    def build(x: Tensor) -> Work:
        number = value(x)
        return Work(lambda: function(x, number), reference, (x.flatten(1), number, None, x.shape[1], *rest))

    return build


def _l1_box(x: Tensor) -> Work:
    center = torch.rand_like(x)
    moved = (center + x).contiguous()
    return Work(
        lambda: ops.project_l1_box(moved, center, l1_radius(x)),
        why="the reference takes time and memory quadratic in the row: an oracle alone",
    )


def _dual(p: float) -> Callable[[Tensor], Work]:
    return lambda x: Work(lambda: ops.dual_normalize(x, p), ref.dual_normalize, (x.flatten(1), p))


def _norm(norm: str, p: float, grouping: str = "value") -> Callable[[Tensor], Work]:
    def build(x: Tensor) -> Work:
        channels = x.shape[1] if grouping == "pixel" else 1
        return Work(lambda: ops.lp_norm(x, norm, grouping), ref.lp_norm, (x.flatten(1), p, channels))

    return build


def _power(x: Tensor) -> Work:
    before = ops.dual_normalize(torch.randn_like(x), 2)
    return Work(
        lambda: ops.power_iteration_step(x, 2, before),
        ref.power_iteration_step,
        (x.flatten(1), before.flatten(1), 2.0, math.inf),
    )


def _sample(p: float) -> Callable[[Tensor], Work]:
    def build(x: Tensor) -> Work:
        ids = torch.arange(len(x), device=x.device)
        return Work(
            lambda: ops.sample_lp_ball(x, p, 1.0, sample_ids=ids),
            why="no reference: other devices take the CPU's numbers",
        )

    return build


def _pgd(p: float, eps: Callable[[Tensor], float]) -> Callable[[Tensor], Work]:
    def build(x: Tensor) -> Work:
        inputs, size = torch.rand_like(x), eps(x)
        start = (inputs + x).clamp_(0, 1)
        adv, grad = start.clone(), torch.randn_like(x)
        return Work(
            lambda: ops.pgd_step_(adv, grad, inputs, p, size, size / 4),
            None if p == 1 else ref_steps.pgd_step,
            (adv, grad, inputs, size, None, size / 4, None, p, 0.0, 0.0, 1.0),
            "the reference's l1 box is quadratic in the row: an oracle alone",
            lambda: adv.copy_(start),
        )

    return build


def _primal_dual(norm: str) -> Callable[[Tensor], Work]:
    """A step in the middle of an attack: moments filled, a perturbation of size x, not adversarial, no new best."""

    def build(x: Tensor) -> Work:
        normalize = {"linf": 1.0, "l1": math.inf, "l0": math.inf}.get(norm, 2.0)
        inputs, grad = torch.rand_like(x), torch.randn_like(x)
        unit = grad / torch.linalg.vector_norm(grad.flatten(1), normalize, dim=1).reshape(-1, *[1] * (x.ndim - 1))
        start = ops.PrimalDualState.start(inputs, 0.1)
        start.adv.add_(x).clamp_(0, 1)
        start.exp_avg.copy_(unit)
        start.exp_avg_sq.copy_(unit.square() * (0.5 + torch.rand_like(x)))
        start.distance.fill_(1.0)
        state = ops.PrimalDualState(*(t.clone() for t in start.tensors()))
        margin = torch.ones_like(state.distance)
        options = ops.StepOptions(
            step_size=1e-3, dual_step=0.0, normalize=normalize, grouping="pixel" if norm == "l0" else "value"
        )
        channels = x.shape[1] if norm == "l0" else 1
        constants = [1e-3, normalize, *options.betas, 1.0, 1.0, 0.0, options.dual_limit, 0.0, options.damping, 0.0, 1.0]
        code = ["pdgd", "l2", "l1", "linf", "l0"].index(norm)

        def reset() -> None:
            for now, before in zip(state.tensors(), start.tensors(), strict=True):
                now.copy_(before)

        if norm == "pdgd":
            run = lambda: ops.pdgd_step_(state, inputs, grad, margin, options)  # noqa: E731
        else:
            run = lambda: ops.pdpgd_step_(state, inputs, grad, margin, norm, options)  # noqa: E731
        arguments = (*state.tensors(), inputs, grad, margin, channels, code, 1, constants)
        return Work(run, ref_steps.primal_dual_step, arguments, reset=reset)

    return build


def _sigma_zero(grouping: str) -> Callable[[Tensor], Work]:
    """A step in the middle of an attack: moments filled, a perturbation of size x."""

    def build(x: Tensor) -> Work:
        inputs, grad = torch.rand_like(x), torch.randn_like(x)
        start = ops.SigmaZeroState.start(inputs, SIGMA)
        start.delta.copy_((inputs + x).clamp_(0, 1) - inputs)
        start.exp_avg.copy_(grad)
        start.exp_avg_sq.copy_(grad.square() * (0.5 + torch.rand_like(x)))
        state = ops.SigmaZeroState(*(t.clone() for t in start.tensors()))
        adversarial = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        channels = x.shape[1] if grouping == "pixel" else 1
        constants = [0.01, 1e-3, 0.0, 0.9, 0.999, 1.0, 1.0, 0.0, 1.0]

        def reset() -> None:
            for now, before in zip(state.tensors(), start.tensors(), strict=True):
                now.copy_(before)

        return Work(
            lambda: ops.sigma_zero_step_(
                state, inputs, grad, adversarial, step_size=0.01, threshold_step=0.0, grouping=grouping
            ),
            ref_steps.sigma_zero_step,
            (*state.tensors(), inputs, grad, adversarial, channels, constants),
            reset=reset,
        )

    return build


def _seed(x: Tensor) -> Work:
    logits = x.flatten(1)
    labels, best_class = (torch.randint(logits.shape[1], (len(x),), device=x.device) for _ in range(2))
    state = ops.PrimalDualState.start(logits[:, :1], 0.1)
    arguments = (logits, labels, None, best_class, state.distance, state.best_distance, False, False)
    return Work(lambda: ops.attack_seed(logits, labels, best_class, state), ref_steps.attack_seed, arguments)


def _total_variation(x: Tensor) -> Work:
    return Work(lambda: ops.prox_tv(x, 0.02), why="iterative; its oracle is not a baseline", replays=False)


def _spectral(x: Tensor) -> Work:
    weight = x.flatten(1)
    left = torch.randn(weight.shape[0], device=x.device)
    return Work(lambda: ops.spectral_norm_step([weight], [left]), why="matrix products: see torch.mv", replays=False)


def cases() -> list[Case]:
    """Every row op, with the fewest tensors that it must read and write."""
    l2 = lambda x: 0.1 * SIGMA * math.sqrt(x[0].numel())  # noqa: E731
    fixed = lambda value: lambda x: value  # noqa: E731
    tenth = lambda x: float(x[0, 0].numel() // 10)  # noqa: E731
    hard = fixed(0.5 * SIGMA**2)  # thresholds at SIGMA
    return [
        Case("project_l1_ball", 2, _row_op(ops.project_l1_ball, ref.project_l1_ball, l1_radius)),
        Case("project_simplex", 2, _row_op(ops.project_simplex, ref.project_simplex, l1_radius)),
        Case("project_l2_ball", 2, _row_op(ops.project_l2_ball, ref.project_l2_ball, l2)),
        Case("project_linf_ball", 2, _row_op(ops.project_linf_ball, ref.project_linf_ball, fixed(SIGMA))),
        Case("project_l0_ball", 2, _pixels(ops.project_l0_ball, ref.project_l0_ball, tenth)),
        Case("project_l1_box", 3, _l1_box),
        Case("prox_l1", 2, _row_op(ops.prox_l1, ref.prox_l1, fixed(0.02))),
        Case("prox_l2", 2, _row_op(ops.prox_l2, ref.prox_l2, l2)),
        Case("prox_linf", 2, _row_op(ops.prox_linf, ref.prox_linf, l1_radius)),
        Case("prox_l0", 2, _row_op(ops.prox_l0, ref.prox_l0, hard)),
        Case("prox_l0_group", 2, _pixels(ops.prox_l0_group, ref.prox_l0_group, hard, 0)),
        *(Case(f"dual_normalize p={p:g}", 2, _dual(p)) for p in (1.0, 2.0, math.inf, 3.0)),
        *(Case(f"lp_norm {norm}", 1, _norm(norm, p)) for norm, p in (("l1", 1.0), ("l2", 2.0), ("linf", math.inf))),
        Case("lp_norm l0 pixel", 1, _norm("l0", 0.0, "pixel")),
        Case("power_iteration_step", 3, _power),
        *(Case(f"sample_lp_ball p={p:g}", 1, _sample(p)) for p in (1.0, 2.0, math.inf)),
        Case("pgd_step linf", 4, _pgd(math.inf, fixed(SIGMA))),
        Case("pgd_step l2", 4, _pgd(2.0, l2)),
        Case("pgd_step l1", 4, _pgd(1.0, l1_radius)),
        Case("pdgd_step", 8, _primal_dual("pdgd")),
        *(Case(f"pdpgd_step {norm}", 8, _primal_dual(norm)) for norm in ("linf", "l2", "l1", "l0")),
        *(Case(f"sigma_zero_step {grouping}", 9, _sigma_zero(grouping)) for grouping in ("value", "pixel")),
        Case("attack_seed", 2, _seed),
        Case("prox_tv", 2, _total_variation),
        Case("spectral_norm_step", 1, _spectral),
    ]

"""Fused attack steps: what an attack does between the model's backward pass and its next forward pass, in one launch.

Every function that ends in "_" works in place on the state that it is given, so that a loop allocates nothing. Nothing
here is differentiable; nothing synchronises with the device.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyrobust.ops import _reference_steps as ref
from pyrobust.ops._native import ROW_DTYPES, launch
from pyrobust.ops._register import (
    channels_of,
    check_bounds,
    check_like,
    check_rows,
    check_tensor,
    is_plain,
    mark_changed,
    register,
    row_shape,
    split_scalar,
)  # fmt: skip
from pyrobust.ops.norms import check_exponent
from pyrobust.ops.projections import sphere_norm

_PROX = {"pdgd": 0, "l2": 1, "l1": 2, "linf": 3, "l0": 4}


def _pgd_run(
    adv: Tensor,
    grad: Tensor,
    inputs: Tensor,
    eps: float,
    eps_rows: Tensor | None,
    step_size: float,
    step_rows: Tensor | None,
    p: float,
    sparsity: float,
    low: float,
    high: float,
) -> None:
    rows, cols = row_shape(adv)
    g, x = grad.contiguous(), inputs.contiguous()
    target = adv if adv.is_contiguous() else adv.contiguous()
    radius = eps if eps_rows is None else eps_rows.data_ptr()
    step = step_size if step_rows is None else step_rows.data_ptr()
    at = target.data_ptr()
    if cols:
        launch("pgd_step", adv, rows, cols, at, at, g.data_ptr(), x.data_ptr(), radius, step, p, sparsity, low, high)
    if target is not adv:
        adv.copy_(target)


register(
    "pgd_step_",
    "(Tensor(a!) adv, Tensor grad, Tensor inputs, float eps, Tensor? eps_rows, float step_size, Tensor? step_rows, float p, "
    "float sparsity, float low, float high) -> ()",
    run=_pgd_run,
    reference=ref.pgd_step,
    fake=lambda *args: None,
)


def pgd_step_(
    adv: Tensor,
    grad: Tensor,
    inputs: Tensor,
    p: float,
    eps: float | Tensor,
    step_size: float | Tensor,
    bounds: tuple[float, float] = (0.0, 1.0),
    sparsity: float = 0.0,
) -> Tensor:
    """One step of projected gradient ascent, in place: adv ← Π(adv + step_size · v), v the dual direction of grad.

    v maximises ⟨v, grad⟩ over ‖v‖_p ≤ 1 (:func:`pyrobust.ops.dual_normalize`); for p = 1 and sparsity > 0 the sparse
    step of SLIDE instead: the signs of the share ``sparsity`` of largest gradients (ties included) over their number. Π
        projects onto {‖adv − inputs‖_p ≤ eps} ∩ bounds: exactly for p = 1 and
    ∞; for p = 2 onto the ball and then into the box, which keeps the point in the ball.

    Args:
        adv: (N, …), the point where the gradient was taken; replaced.
        grad: like ``adv``.
        inputs: like ``adv``, the centre, inside ``bounds``.
        p: 1, 2 or inf.
        eps: radius >= 0; a number or (N,).
        step_size: >= 0; a number or (N,).
        bounds: (low, high).
        sparsity: in [0, 1], for p = 1 alone; 0 moves the largest gradient alone.

    Returns:
        ``adv``. Rows with NaN or ±Inf in the gradient become NaN (for p = ∞ only the NaN elements do).

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype, device or range does not fit.

    Source: seed 004, eq. 17; seed 002, §4.1; Tramèr and Boneh 2019 for the sparse step; Croce and Hein 2021 for l1 ∩
    box.
    """
    _check_state("pgd_step_", adv, grad=grad, inputs=inputs)
    p = sphere_norm("pgd_step_", p)
    if not 0 <= sparsity <= 1 or (sparsity > 0 and p != 1):
        raise ValueError(
            f"pgd_step_: sparsity: expected a share in [0, 1], and 0 unless p = 1, got {sparsity} with p = {p}"
        )
    low, high = check_bounds("pgd_step_", bounds)
    scalars = (*split_scalar("pgd_step_", "eps", eps, adv), *split_scalar("pgd_step_", "step_size", step_size, adv))
    arguments = (adv, grad, inputs, *scalars, p, float(sparsity), low, high)
    if is_plain(adv, grad, inputs):
        _pgd_run(*arguments)
        mark_changed((adv,))
    else:
        torch.ops.pyrobust.pgd_step_(*arguments)
    return adv


def pgd_step(
    adv: Tensor, grad: Tensor, inputs: Tensor, p: float, eps: float | Tensor, step_size: float | Tensor, **options: Any
) -> Tensor:
    """:func:`pgd_step_` on a copy of ``adv``."""
    return pgd_step_(adv.detach().clone(), grad, inputs, p, eps, step_size, **options)


def _check_state(name: str, adv: Tensor, **tensors: Tensor) -> None:
    check_rows(name, adv, "adv")
    requires_grad = adv.requires_grad
    for argument, tensor in tensors.items():
        check_like(name, argument, tensor, adv)
        requires_grad |= tensor.requires_grad
    if requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: expected tensors that do not require grad: attack steps have no derivative")


@dataclass(slots=True)
class PrimalDualState:
    """What a primal-dual attack carries from step to step; one value a row is (N,) in float64 for float64, else
    float32.

    Attributes:
        adv: (N, …), the point to predict next.
        exp_avg, exp_avg_sq: Adam's moments, in the dtype of the row values.
        best: like adv, the nearest adversarial point found; the inputs where none was.
        best_distance: its distance, inf where none was found.
        distance: of ``adv``.
        dual: log(λ₂ / λ₁).
        dual_average: moving average of λ₁ on the simplex λ₁ + λ₂ = 1.
    """

    adv: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    best: Tensor
    best_distance: Tensor
    distance: Tensor
    dual: Tensor
    dual_average: Tensor
    _checked: tuple[Tensor, ...] = field(default=(), init=False, repr=False, compare=False)
    _plain: bool = field(default=False, init=False, repr=False, compare=False)  # of those checked: see is_plain
    _size: tuple[int, int] = field(default=(0, 0), init=False, repr=False, compare=False)  # likewise: see row_shape
    _seeded: tuple[Tensor | None, ...] = field(default=(), init=False, repr=False, compare=False)

    def check(self, name: str, inputs: Tensor) -> tuple[Tensor, ...]:
        """The tensors and the inputs, once they fit each other; checked again only when one of them was replaced.

        Raises:
            TypeError, ValueError: naming the tensor.
        """
        tensors = (*self.tensors(), inputs)
        if len(self._checked) == len(tensors) and all(map(operator.is_, tensors, self._checked)):
            return tensors
        check_rows(name, self.adv, "state.adv")
        check_like(name, "inputs", inputs, self.adv)
        adv, wide = self.adv, ROW_DTYPES[self.adv.dtype]
        for argument, shape, dtype in (
            ("exp_avg", adv.shape, wide),
            ("exp_avg_sq", adv.shape, wide),
            ("best", adv.shape, adv.dtype),
            *((argument, adv.shape[:1], wide) for argument in ("best_distance", "distance", "dual", "dual_average")),
        ):
            check_tensor(name, f"state.{argument}", getattr(self, argument), shape, dtype, adv.device)
        if not all(t.is_contiguous() for t in tensors[:-1]):
            raise ValueError(f"{name}: state: expected contiguous tensors, as PrimalDualState.start makes them")
        with torch.no_grad():
            self._plain = is_plain(*tensors)
        self._size = row_shape(adv)
        self._checked = tensors
        return tensors

    def check_classes(self, name: str, labels: Tensor, best_class: Tensor, targets: Tensor | None) -> None:
        """Check the class tensors of a seed against the state; again only when one of them was replaced.

        Raises:
            TypeError, ValueError: naming the tensor.
        """
        given = (self.distance, self.best_distance, labels, best_class, targets)
        if len(self._seeded) == len(given) and all(map(operator.is_, given, self._seeded)):
            return
        for argument, tensor in (("labels", labels), ("best_class", best_class), ("targets", targets)):
            if tensor is not None:
                check_tensor(name, argument, tensor, self.distance.shape, torch.int64, self.distance.device)
        check_like(name, "state.best_distance", self.best_distance, self.distance)
        if not best_class.is_contiguous():
            raise ValueError(f"{name}: best_class: expected a contiguous tensor")
        self._seeded = given

    @classmethod
    def start(cls, inputs: Tensor, ratio: float) -> PrimalDualState:
        """The state at r = 0 with λ₁ / λ₂ = ratio."""
        check_rows("PrimalDualState", inputs, "inputs")
        if inputs.ndim < 2:
            raise ValueError(f"PrimalDualState: inputs: expected shape (N, ...), got {tuple(inputs.shape)}")
        inputs = inputs.detach().contiguous()
        wide = ROW_DTYPES[inputs.dtype]
        rows = inputs.new_zeros(len(inputs), dtype=wide)
        moments = torch.zeros(inputs.shape, dtype=wide, device=inputs.device)
        infinite = torch.full_like(rows, math.inf)
        state = cls(
            inputs.clone(), moments, moments.clone(), inputs.clone(), infinite, rows.clone(), rows.clone(), rows.clone()
        )
        state.restart(inputs, ratio)
        return state

    def restart(self, adv: Tensor, ratio: float, distance: Tensor | None = None) -> None:
        """Start again from ``adv`` (``distance`` away; 0 when left out), keeping the best."""
        self.adv.copy_(adv)
        self.exp_avg.zero_()
        self.exp_avg_sq.zero_()
        if distance is None:
            self.distance.zero_()
        else:
            self.distance.copy_(distance)
        self.dual.fill_(-math.log(ratio))
        self.dual_average.fill_(ratio / (1 + ratio))

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order in which they are declared."""
        return (
            self.adv,
            self.exp_avg,
            self.exp_avg_sq,
            self.best,
            self.best_distance,
            self.distance,
            self.dual,
            self.dual_average,
        )


@dataclass(frozen=True)
class StepOptions:
    """Constants of a primal-dual step.

    Attributes:
        step_size: step in units of the width of ``bounds``; > 0.
        dual_step: added to, or taken from, the log of λ₂ / λ₁.
        corrections: Adam's 1 − β₁ᵏ and 1 − β₂ᵏ at this step.
        betas: β₁, β₂ in [0, 1).
        adaptive: whether Adam's second moment scales the step, or the step is plain.
        normalize: exponent of the norm that divides each row's gradient (the conjugate of the norm to minimise), 0 for
            none.
        dual_limit: the log of λ₂ / λ₁ stays within ± this.
        dual_momentum: of the moving average of λ₁; 0: none.
        damping: in [0, 1]: the prox of linf, l2 and l1 takes no element of √v̂ as below this share of the row's largest.
        bounds: (low, high).
        grouping: for l0: "pixel" or "value".
    """

    step_size: float
    dual_step: float
    corrections: tuple[float, float] = (1.0, 1.0)
    betas: tuple[float, float] = (0.5, 0.999)
    adaptive: bool = True
    normalize: float = 0.0
    dual_limit: float = 13.815510557964274  # log 10⁶
    dual_momentum: float = 0.0
    damping: float = 0.0
    bounds: tuple[float, float] = (0.0, 1.0)
    grouping: str = "value"
    constants: list[float] = field(init=False, repr=False, compare=False)  # as the native step takes them

    def __post_init__(self) -> None:
        if not self.step_size > 0:
            raise ValueError(f"StepOptions: step_size: expected a value > 0, got {self.step_size}")
        low, high = check_bounds("StepOptions", self.bounds)
        normalize = self.normalize and check_exponent("StepOptions", self.normalize)
        constants = [self.step_size, float(normalize), *self.betas, *self.corrections, self.dual_step, self.dual_limit]
        if not 0 <= self.damping <= 1:
            raise ValueError(f"StepOptions: damping: expected a value in [0, 1], got {self.damping}")
        object.__setattr__(self, "constants", [*constants, self.dual_momentum, float(self.damping), low, high])


def _primal_dual_run(
    adv: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, best: Tensor, best_distance: Tensor, distance: Tensor, dual: Tensor,
    dual_average: Tensor, inputs: Tensor, grad: Tensor, margin: Tensor, channels: int, prox: int, adaptive: int,
    constants: list[float],
) -> None:  # fmt: skip
    tensors = (
        adv, exp_avg, exp_avg_sq, best, best_distance, distance, dual, dual_average, inputs.contiguous(), grad.contiguous(),
        margin,
    )  # fmt: skip
    _primal_dual_launch(tensors, row_shape(adv), channels, prox, adaptive, constants)


def _primal_dual_launch(
    tensors: tuple[Tensor, ...], size: tuple[int, int], channels: int, prox: int, adaptive: int, constants: list[float]
) -> None:
    rows, cols = size
    if cols:
        addresses = map(Tensor.data_ptr, tensors)
        launch("primal_dual_step", tensors[0], rows, cols // channels, *addresses, channels, prox, adaptive, *constants)


register(
    "primal_dual_step_",
    "(Tensor(a!) adv, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor(d!) best, Tensor(e!) best_distance, Tensor(f!) distance, "
    "Tensor(g!) dual, Tensor(h!) dual_average, Tensor inputs, Tensor grad, Tensor margin, int channels, int prox, int adaptive, "
    "float[] constants) -> ()",
    run=_primal_dual_run,
    reference=ref.primal_dual_step,
    fake=lambda *args: None,
)


def _primal_dual_step_(
    name: str, prox: str, state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, options: StepOptions
) -> PrimalDualState:
    adv = state.adv
    tensors = state.check(name, inputs)
    check_like(name, "grad", grad, adv)
    check_like(name, "margin", margin, state.distance)
    tracked = adv.requires_grad or inputs.requires_grad or grad.requires_grad
    if tracked and torch.is_grad_enabled():
        raise ValueError(f"{name}: expected tensors that do not require grad: attack steps have no derivative")
    channels = 1
    if prox == "l0" and options.grouping != "value":
        channels = channels_of(name, adv, options.grouping)
        if channels > 1 and options.normalize not in (0, math.inf):
            raise ValueError(f"{name}: normalize: expected 0 or inf for pixel groups, got {options.normalize}")
    settings = (channels, _PROX[prox], int(options.adaptive), options.constants)
    margin = margin if margin.is_contiguous() else margin.contiguous()
    if not (state._plain and is_plain(grad, margin)):
        torch.ops.pyrobust.primal_dual_step_(*tensors, grad, margin, *settings)
        return state
    changed = tensors[:-1]
    _primal_dual_launch((*changed, inputs.contiguous(), grad.contiguous(), margin), state._size, *settings)
    mark_changed(changed)
    return state


def pdpgd_step_(
    state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, norm: str, options: StepOptions
) -> PrimalDualState:
    """One step of primal-dual proximal gradient descent, in place: best so far, gradient step, prox, box, distance,
    dual update.

    With r = (adv − inputs) / width, ρ = λ₁ / λ₂, Adam's moments m, v of the normalised gradient and the metric w = (√v̂
    + 1e-8) / step_size (w = 1 / step_size when not adaptive):

        best ← adv where margin < 0 and distance < best_distance
        r ← box(r − m̂ / w);  r ← argmin_u ½ Σ w' (u − r)² + ρ ‖u‖,  w' = (max(√v̂, damping · max √v̂) + 1e-8) / step_size
        dual ← clamp(dual + dual_step · sign(margin), ± dual_limit)

    The minimiser is exact in the diagonal metric w'. l1: sign(r) (|r| − ρ / w')₊. linf: clamp(r, ±t), Σ w' (|r| − t)₊ =
    ρ. l2: u = r w' s / (w' s + ρ), s = ‖u‖₂. l0, where w' = w: a pixel or value g is kept iff ½ Σ_g w r² > ρ.

    Args:
        state: as left by the step before; changed in place.
        inputs: (N, …), like ``state.adv``.
        grad: like ``state.adv``: the gradient of the surrogate loss there.
        margin: (N,): > 0 while the point is not adversarial.
        norm: "linf", "l2", "l1" or "l0".
        options: constants of the step.

    Returns:
        ``state``.

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype, device or range does not fit.

    Source: seed 003, algorithm 3 and eq. 5.8–5.16 (corrected); the metric is that of proximal Adam (Melchior et al.
    2019).
    """
    if norm not in ("linf", "l2", "l1", "l0"):
        raise ValueError(f"pdpgd_step_: norm: expected linf, l2, l1 or l0, got {norm!r}")
    return _primal_dual_step_("pdpgd_step_", norm, state, inputs, grad, margin, options)


def pdgd_step_(
    state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, options: StepOptions
) -> PrimalDualState:
    """One step of primal-dual gradient descent for the l2 norm, in place: as :func:`pdpgd_step_`, with ρ r / ‖r‖₂ added
    to the gradient in place of the prox.

    Source: seed 003, algorithm 2 (corrected).
    """
    return _primal_dual_step_("pdgd_step_", "pdgd", state, inputs, grad, margin, options)


def _copied(state: PrimalDualState) -> PrimalDualState:
    return PrimalDualState(*(t.clone() for t in state.tensors()))


def pdpgd_step(
    state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, norm: str, options: StepOptions
) -> PrimalDualState:
    """:func:`pdpgd_step_` on a copy of ``state``."""
    return pdpgd_step_(_copied(state), inputs, grad, margin, norm, options)


def pdgd_step(
    state: PrimalDualState, inputs: Tensor, grad: Tensor, margin: Tensor, options: StepOptions
) -> PrimalDualState:
    """:func:`pdgd_step_` on a copy of ``state``."""
    return pdgd_step_(_copied(state), inputs, grad, margin, options)


def _seed_run(
    logits: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    best_class: Tensor,
    distance: Tensor,
    best_distance: Tensor,
    targeted: bool,
    follow: bool,
) -> tuple[Tensor, Tensor]:
    z = logits.contiguous()
    seed = torch.empty_like(z)
    margin = torch.empty_like(distance)
    towards = best_class.data_ptr() if follow else (0 if targets is None else targets.data_ptr())
    rows, classes = z.shape
    launch(
        "attack_seed", z, rows, classes, seed.data_ptr(), margin.data_ptr(), z.data_ptr(), labels.data_ptr(), towards,
        best_class.data_ptr(), distance.data_ptr(), best_distance.data_ptr(), int(targeted),
    )  # fmt: skip
    return seed, margin


register(
    "attack_seed",
    "(Tensor logits, Tensor labels, Tensor? targets, Tensor(a!) best_class, Tensor distance, Tensor best_distance, bool targeted, "
    "bool follow) -> (Tensor, Tensor)",
    run=_seed_run,
    reference=ref.attack_seed,
    fake=lambda logits, *rest: (
        torch.empty_like(logits),
        torch.empty(len(logits), dtype=ROW_DTYPES[logits.dtype], device=logits.device),
    ),
)


def attack_seed(
    logits: Tensor,
    labels: Tensor,
    best_class: Tensor,
    state: PrimalDualState,
    targets: Tensor | None = None,
    targeted: bool = False,
    follow: bool = False,
) -> tuple[Tensor, Tensor]:
    """The gradient of the surrogate loss with respect to the logits, and the margin; keeps ``best_class`` up to date.

    margin m = z_y − max_{i ≠ y} z_i (its negative when targeted, y then being the target); surrogate = [m ≥ 0] (z_y −
    z_t): a hinge that stops pushing once the point is adversarial. t is ``targets``, or ``best_class`` with ``follow``,
    or the runner-up.

    Args:
        logits: (N, K), detached.
        labels: int64 (N,) in [0, K).
        best_class: int64 (N,): the class that won at the best adversarial point; replaced where margin < 0 and
            state.distance < state.best_distance.
        state: of the attack, before its step.
        targets: int64 (N,) or None.
        targeted: whether labels are targets.
        follow: push towards ``best_class``.

    Returns:
        (seed like logits, margin (N,)); the margin of a row with NaN is NaN.

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype or device does not fit.

    Source: seed 003, eq. 5.2 and 5.3 (corrected).
    """
    check_rows("attack_seed", logits, "logits")
    if logits.ndim != 2:
        raise ValueError(f"attack_seed: logits: expected shape (N, K), got {tuple(logits.shape)}")
    rows = state.distance
    if rows.dtype is not ROW_DTYPES[logits.dtype] or len(rows) != len(logits) or rows.device != logits.device:
        raise ValueError(
            f"attack_seed: state: expected distances {ROW_DTYPES[logits.dtype]} ({len(logits)},) on {logits.device} to go with "
            f"{logits.dtype} logits, got {rows.dtype} {tuple(rows.shape)} on {rows.device}"
        )
    state.check_classes("attack_seed", labels, best_class, targets)
    labels, targets = labels.contiguous(), None if targets is None else targets.contiguous()
    arguments = (logits, labels, targets, best_class, state.distance, state.best_distance, targeted, follow)
    if not is_plain(logits):
        return torch.ops.pyrobust.attack_seed(*arguments)
    result = _seed_run(*arguments)
    mark_changed((best_class,))
    return result


__all__ = [
    "PrimalDualState",
    "StepOptions",
    "attack_seed",
    "pdgd_step",
    "pdgd_step_",
    "pdpgd_step",
    "pdpgd_step_",
    "pgd_step",
    "pgd_step_",
]

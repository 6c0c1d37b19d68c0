"""The fused step of σ-zero: what it does between the model's backward pass and its next forward pass, in one launch."""

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
)

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(slots=True)
class SigmaZeroState:
    """What σ-zero carries from step to step; all but ``adv`` in float64 for float64, else float32.

    Attributes:
        adv: (N, …), the point to predict next.
        delta: like adv, the perturbation in units of the width of the bounds.
        exp_avg, exp_avg_sq: like adv, Adam's moments.
        threshold: (N,), τ in [0, 1].
        distance: (N,), the groups in which ``adv`` differs from the inputs.
    """

    adv: Tensor
    delta: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    threshold: Tensor
    distance: Tensor
    _checked: tuple[Tensor, ...] = field(default=(), init=False, repr=False, compare=False)
    _plain: bool = field(default=False, init=False, repr=False, compare=False)  # of those checked: see is_plain
    _size: tuple[int, int] = field(default=(0, 0), init=False, repr=False, compare=False)  # likewise: see row_shape

    @classmethod
    def start(cls, inputs: Tensor, threshold: float) -> SigmaZeroState:
        """The state at δ = 0, for a threshold in [0, 1]."""
        check_rows("SigmaZeroState", inputs, "inputs")
        if inputs.ndim < 2:
            raise ValueError(f"SigmaZeroState: inputs: expected shape (N, ...), got {tuple(inputs.shape)}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"SigmaZeroState: threshold: expected a value in [0, 1], got {threshold}")
        adv = inputs.detach().contiguous().clone()
        delta = torch.zeros(adv.shape, dtype=ROW_DTYPES[adv.dtype], device=adv.device)
        distance = delta.new_zeros(len(adv))
        return cls(adv, delta, delta.clone(), delta.clone(), torch.full_like(distance, threshold), distance)

    def tensors(self) -> _Tensors:
        """All tensors, in the order in which they are declared."""
        return self.adv, self.delta, self.exp_avg, self.exp_avg_sq, self.threshold, self.distance

    def check(self, name: str, inputs: Tensor) -> _Tensors:
        """The tensors, once they and the inputs fit each other; checked again only when one of them was replaced.

        Raises:
            TypeError, ValueError: naming the tensor.
        """
        own = self.tensors()
        tensors = (*own, inputs)
        if len(self._checked) == len(tensors) and all(map(operator.is_, tensors, self._checked)):
            return own
        check_rows(name, self.adv, "state.adv")
        check_like(name, "inputs", inputs, self.adv)
        adv, wide = self.adv, ROW_DTYPES[self.adv.dtype]
        for argument in ("delta", "exp_avg", "exp_avg_sq"):
            check_tensor(name, f"state.{argument}", getattr(self, argument), adv.shape, wide, adv.device)
        for argument in ("threshold", "distance"):
            check_tensor(name, f"state.{argument}", getattr(self, argument), adv.shape[:1], wide, adv.device)
        if not all(t.is_contiguous() for t in own):
            raise ValueError(f"{name}: state: expected contiguous tensors, as SigmaZeroState.start makes them")
        with torch.no_grad():
            self._plain = is_plain(*tensors)
        self._size = row_shape(adv)
        self._checked = tensors
        return own


def _run(
    adv: Tensor, delta: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, threshold: Tensor, distance: Tensor, inputs: Tensor,
    grad: Tensor, adversarial: Tensor, channels: int, constants: list[float],
) -> None:  # fmt: skip
    state = adv, delta, exp_avg, exp_avg_sq, threshold, distance
    read = inputs.contiguous(), grad.contiguous(), adversarial.contiguous()
    _launch((*state, *read), row_shape(adv), channels, constants)


def _launch(tensors: tuple[Tensor, ...], size: tuple[int, int], channels: int, constants: list[float]) -> None:
    rows, cols = size
    if cols:
        addresses = map(Tensor.data_ptr, tensors)
        launch("sigma_zero_step", tensors[0], rows, cols // channels, *addresses, channels, *constants)


register(
    "sigma_zero_step_",
    "(Tensor(a!) adv, Tensor(b!) delta, Tensor(c!) exp_avg, Tensor(d!) exp_avg_sq, Tensor(e!) threshold, Tensor(f!) distance, "
    "Tensor inputs, Tensor grad, Tensor adversarial, int channels, float[] constants) -> ()",
    run=_run,
    reference=ref.sigma_zero_step,
    fake=lambda *args: None,
)


def sigma_zero_step_(
    state: SigmaZeroState,
    inputs: Tensor,
    grad: Tensor,
    adversarial: Tensor,
    *,
    step_size: float,
    sigma: float = 1e-3,
    threshold_step: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    corrections: tuple[float, float] = (1.0, 1.0),
    bounds: tuple[float, float] = (0.0, 1.0),
    grouping: str = "value",
) -> SigmaZeroState:
    """One step of σ-zero, in place: threshold, Adam's step on the loss and the smooth l0 norm, box, hard thresholding.

    With δ the perturbation in units of the width of ``bounds``, in D groups g, and τ the threshold:

        τ ← clamp(τ ± threshold_step, 0, 1), + where ``adversarial``
        h ← width · grad + ∇ 1/D Σ_g ‖δ_g‖² / (‖δ_g‖² + σ);  h ← h / max(‖h‖∞, 1e-12)
        δ ← box(δ − step_size · m̂ / (√v̂ + 1e-8)), m and v Adam's moments of h
        δ_g ← 0 where max |δ_g| ≤ τ;  adv ← inputs + width · δ;  distance ← ‖adv − inputs‖₀ by groups

    Args:
        state: as left by the step before; changed in place.
        inputs: (N, …), like ``state.adv``, inside ``bounds``.
        grad: like ``state.adv``: the gradient of the loss there.
        adversarial: bool (N,): whether ``state.adv`` is.
        step_size: of this step, > 0, in units of the width of ``bounds``, as δ and τ.
        sigma: σ > 0.
        threshold_step: >= 0.
        betas: β₁, β₂ in [0, 1).
        corrections: Adam's 1 − β₁ᵏ and 1 − β₂ᵏ at this step.
        bounds: (low, high).
        grouping: "pixel" for (N, C, …): the values of all C planes at a place; or "value".

    Returns:
        ``state``. Where the gradient is NaN or ±Inf the element becomes NaN, and with a NaN all elements of the row do.

    Raises:
        TypeError: dtype not supported.
        ValueError: an argument's shape, dtype, device or range does not fit.

    Source: Cinà et al. 2025, algorithm 1; pixel groups are this library's extension.
    """
    name = "sigma_zero_step_"
    changed = state.check(name, inputs)
    adv = state.adv
    check_like(name, "grad", grad, adv)
    check_tensor(name, "adversarial", adversarial, adv.shape[:1], torch.bool, adv.device)
    if (adv.requires_grad or inputs.requires_grad or grad.requires_grad) and torch.is_grad_enabled():
        raise ValueError(f"{name}: expected tensors that do not require grad: attack steps have no derivative")
    if not (0 < step_size < math.inf and 0 < sigma < math.inf and 0 <= threshold_step < math.inf):
        _refuse(name, step_size, sigma, threshold_step)
    channels = 1 if grouping == "value" else channels_of(name, adv, grouping)
    constants = [step_size, sigma, threshold_step, *betas, *corrections, *check_bounds(name, bounds)]
    if state._plain and is_plain(grad, adversarial):
        read = inputs.contiguous(), grad.contiguous(), adversarial.contiguous()
        _launch((*changed, *read), state._size, channels, constants)
        mark_changed(changed)
    else:
        torch.ops.pyrobust.sigma_zero_step_(*changed, inputs, grad, adversarial, channels, constants)
    return state


def _refuse(name: str, step_size: float, sigma: float, threshold_step: float) -> None:
    for argument, value in (("step_size", step_size), ("sigma", sigma)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {argument}: expected a finite value > 0, got {value}")
    raise ValueError(f"{name}: threshold_step: expected a finite value >= 0, got {threshold_step}")


def sigma_zero_step(
    state: SigmaZeroState, inputs: Tensor, grad: Tensor, adversarial: Tensor, **options: Any
) -> SigmaZeroState:
    """:func:`sigma_zero_step_` on a copy of ``state``."""
    return sigma_zero_step_(SigmaZeroState(*(t.clone() for t in state.tensors())), inputs, grad, adversarial, **options)


__all__ = ["SigmaZeroState", "sigma_zero_step", "sigma_zero_step_"]

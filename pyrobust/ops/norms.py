"""Row norms and Hölder-dual directions.

Dimension 0 is the batch and all others together are one row; a 1-D tensor is one row. Differentiable in the input.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyrobust._checks import Norm, norm_name
from pyrobust.ops import _reference as ref
from pyrobust.ops import _vjp as vjp
from pyrobust.ops._native import ROW_DTYPES, launch
from pyrobust.ops._register import RowOp, channels_of, check_rows, is_plain, register, row_shape

_DUAL = RowOp("dual_normalize", "float p", ref.dual_normalize, vjp.dual_normalize)


def dual_normalize(z: Tensor, p: float) -> Tensor:
    """The direction that maximises ⟨v, z⟩ over ‖v‖_p ≤ 1: v = sign(z) |z|^(q−1) / ‖z‖_q^(q−1), with 1/p + 1/q = 1.

    p = ∞ gives sign(z); p = 2 gives z / ‖z‖₂; for p = 1 the largest magnitudes share the mass evenly. A zero row stays
    zero. The maximum itself is ⟨v, z⟩ = ‖z‖_q.

    Args:
        z: (N, …) or (D,).
        p: norm of the ball, in [1, ∞].

    Returns:
        A tensor like ``z``. For p < ∞ a row with NaN or ±Inf becomes NaN; for p = ∞ the sign is taken element by
        element.

    Raises:
        TypeError: dtype not supported.
        ValueError: ``p`` below 1 or NaN.

    Source: seed 004, eq. 16 and Lemma 1; for p = 1 the limit in §4.2.
    """
    check_rows("dual_normalize", z, "z")
    return _DUAL(z, check_exponent("dual_normalize", p))


def dual_normalize_(z: Tensor, p: float) -> Tensor:
    """In-place :func:`dual_normalize`; returns ``z``."""
    check_rows("dual_normalize_", z, "z")
    return _DUAL.in_place(z, check_exponent("dual_normalize_", p))


def check_exponent(name: str, p: float) -> float:
    """``p`` as a float; raise ValueError unless it is in [1, ∞]."""
    if isinstance(p, str) or not float(p) >= 1:
        raise ValueError(f"{name}: p: expected a number in [1, inf], got {p!r}")
    return float(p)


def _norm_run(x: Tensor, p: float, channels: int) -> Tensor:
    x = x.contiguous()
    rows, cols = row_shape(x)
    out = torch.empty(rows, dtype=ROW_DTYPES[x.dtype], device=x.device)
    if cols == 0:
        return out.zero_()
    launch("lp_norm", x, rows, cols // channels, out.data_ptr(), x.data_ptr(), p, channels)
    return out


def _norm_reference(x: Tensor, p: float, channels: int) -> Tensor:
    wide = x.to(ROW_DTYPES[x.dtype])
    return ref.lp_norm(wide.reshape(row_shape(x)), p, channels).to(wide.dtype)


def _norm_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, p, _ = inputs
    ctx.save_for_backward(x)
    ctx.p = p


def _norm_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (x,) = ctx.saved_tensors
    return vjp.lp_norm(grad, x, ctx.p), None, None


register(
    "lp_norm",
    "(Tensor x, float p, int channels) -> Tensor",
    run=_norm_run,
    reference=_norm_reference,
    fake=lambda x, p, channels: torch.empty(row_shape(x)[0], dtype=ROW_DTYPES[x.dtype], device=x.device),
    setup_context=_norm_setup,
    backward=_norm_backward,
)
_NORMS = {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": math.inf}


def lp_norm(x: Tensor, norm: Norm, grouping: str = "value") -> Tensor:
    """The norm of each row: l0 (how many are not zero), l1, l2 or linf.

    Args:
        x: (N, …) or (D,).
        norm: 0, 1, 2, inf or "l0", "l1", "l2", "linf".
        grouping: for l0 alone: "value", or "pixel" to count the places of (N, C, …) at which any of the C values is not
            zero.

    Returns:
        (N,) float64 for float64 input, float32 for every other; NaN where the row has one.

    Raises:
        TypeError: dtype not supported.
        ValueError: bad ``norm`` or ``grouping``, or a grouping for a norm other than l0.

    Source: seed 003, eq. 5.15 for the pixel count.
    """
    check_rows("lp_norm", x)
    p = _NORMS[norm_name(norm)]
    if p != 0 and grouping != "value":
        raise ValueError(f'lp_norm: grouping: applies to norm "l0" alone, got {grouping!r} with norm {norm!r}')
    channels = channels_of("lp_norm", x, grouping)
    return _norm_run(x, p, channels) if is_plain(x) else torch.ops.pyrobust.lp_norm(x, p, channels)


__all__ = ["dual_normalize", "dual_normalize_", "lp_norm"]

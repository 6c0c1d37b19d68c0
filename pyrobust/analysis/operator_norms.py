"""(p, q)-operator norms of matrices and of Jacobians at data: how far a change of size 1 in l_p can move the outputs in l_q."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Model, Norm, norm_name
from pyrobust.analysis.jacobian import CAP, map_jacobians
from pyrobust.analysis.work import Work
from pyrobust.attacks._budget import EXPONENTS
from pyrobust.attacks._common import check_count
from pyrobust.training.operator_norm import CONJUGATES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = tuple(EXPONENTS)
PAIRS = tuple((p, q) for p in NORMS for q in NORMS)
ENUMERATED = 12  # signs whose 2¹¹ combinations, up to that of all, are tried one by one


@dataclass(frozen=True)
class OperatorNorms:
    """What :func:`operator_norms` found, by (p, q), p and q each "l1", "l2" or "linf".

    Attributes:
        values: (N,) each, in float64.
        exact: which are the norm up to rounding; the others are lower bounds.
    """

    values: dict[tuple[str, str], Tensor]
    exact: dict[tuple[str, str], bool]

    def plot(self) -> Figure:
        """Median and middle nine tenths over the samples of each norm, lower bounds told apart."""
        from pyrobust.analysis._draw_spectrum import draw_norms

        return draw_norms(self)


def is_exact(p: Norm, q: Norm, rows: int, columns: int) -> bool:
    """Whether :func:`operator_norm` of a matrix (rows, columns) is the norm itself, and not a lower bound of it."""
    p, q = norm_name(p, NORMS), norm_name(q, NORMS)
    easy = p == "l1" or q == "linf" or (p, q) == ("l2", "l2")
    return easy or (q == "l1" and rows <= ENUMERATED) or (p == "linf" and columns <= ENUMERATED)


def operator_norm(matrices: Tensor, p: Norm, q: Norm, *, steps: int = 50, starts: int = 16, seed: int = 0) -> Tensor:
    """‖A‖_{p,q} = max {‖A v‖_q : ‖v‖_p = 1}.

    ==== ===================== ===================== ================
    p, q 1                     2                     ∞
    ==== ===================== ===================== ================
    1    max ‖column‖₁         max ‖column‖₂         max ‖column‖_∞
    2    max ‖Aᵀs‖₂            σ₁                    max ‖row‖₂
    ∞    max ‖Aᵀs‖₁, max ‖As‖₁ max ‖A s‖₂            max ‖row‖₁
    ==== ===================== ===================== ================

    s runs over all vectors of signs: that is NP-hard, and exact here where s has up to 12 entries. Otherwise the power
    method (seed 004, eq. 12) from the longest rows and from random vectors gives a lower bound; :func:`is_exact` tells.

    Args:
        matrices: A, (…, m, D), float32 or float64.
        p: norm of the space of v: "l1", "l2" or "linf" (or 1, 2, inf).
        q: norm of the space of A v, likewise.
        steps: of the power method, at most; it ends when no start's value grows.
        starts: of the power method, for each matrix.
        seed: of the random starts; matrix i depends on (seed, i) alone.

    Returns:
        (…,) in float64.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: O(m D); σ₁: O(m D min(m, D)); signs: O(2^m m D); power method: O(steps · starts · m D), a matrix.
    Source: seed 004, eq. 8, 12 and table 1; ‖A‖_{p,q} = ‖Aᵀ‖_{q*,p*} for the signs of the shorter side.
    """
    p, q = norm_name(p, NORMS), norm_name(q, NORMS)
    if not isinstance(matrices, Tensor) or matrices.dtype not in (torch.float32, torch.float64):
        raise TypeError("matrices: expected a float32 or float64 tensor")
    if matrices.ndim < 2 or matrices.numel() == 0:
        raise ValueError(f"matrices: expected a non-empty tensor (…, m, D), got shape {tuple(matrices.shape)}")
    check_count(steps=steps, starts=starts)
    flat = matrices.detach().double().reshape(-1, *matrices.shape[-2:])
    return _norms(flat, p, q, steps, starts, seed, torch.arange(len(flat), device=flat.device)).reshape(
        matrices.shape[:-2]
    )


def operator_norms(
    model: Model,
    inputs: Tensor,
    layer: str | None = None,
    *,
    steps: int = 50,
    starts: int = 16,
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
    name: str = "operator norms",
) -> OperatorNorms:
    """‖J(x)‖_{p,q} at each input for all p, q in {1, 2, ∞}, J the Jacobian of the logits or of a layer's output.

    Args:
        model: from (N, …) to logits (N, K); run in evaluation mode.
        inputs: (N, …).
        layer: J is of the flat output of this module; None: of the logits.
        steps, starts: of the power method, as of :func:`operator_norm`.
        batch_size: samples a pass, at most.
        seed: of the random starts; sample i depends on (seed, i) alone.
        work: progress and resume.
        name: of the computation in ``work``, unique there.

    Returns:
        OperatorNorms, on the CPU. With up to 12 logits all but (∞, 2) are exact.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward and m backward passes, and :func:`operator_norm` of every pair.
    Source: seed 004, table 1.
    """
    check_count(steps=steps, starts=starts)
    shape: list[int] = []

    def reduce(ids: Tensor, jacobians: Tensor) -> dict[str, Tensor]:
        shape[:] = jacobians.shape[1:]
        found = [_norms(jacobians, p, q, steps, starts, seed, ids) for p, q in PAIRS]
        return {"values": torch.stack(found, 1), "shape": torch.tensor([shape])}

    found = map_jacobians(name, model, inputs, layer, reduce, batch_size, work)
    rows, columns = found["shape"][0].tolist()
    values = dict(zip(PAIRS, found["values"].unbind(1), strict=True))
    return OperatorNorms(values, {pair: is_exact(*pair, rows, columns) for pair in PAIRS})


def _norms(a: Tensor, p: str, q: str, steps: int, starts: int, seed: int, ids: Tensor) -> Tensor:
    """(n,) of float64 (n, m, D)."""
    rows, columns = a.shape[1:]
    if p == "l1":
        return torch.linalg.vector_norm(a, EXPONENTS[q], dim=1).amax(1)
    dual = CONJUGATES[EXPONENTS[p]]
    if q == "linf":
        return torch.linalg.vector_norm(a, dual, dim=2).amax(1)
    if p == q == "l2":
        return torch.linalg.svdvals(a)[:, 0]
    if q == "l1" and rows <= ENUMERATED and (p != "linf" or rows <= columns):
        return _largest_over_signs(a, dual)  # ‖A v‖₁ = max ⟨s, A v⟩
    if p == "linf" and columns <= ENUMERATED:
        return _largest_over_signs(a.mT, EXPONENTS[q])  # a convex function is largest at a corner
    return _power_method(a, EXPONENTS[p], EXPONENTS[q], steps, starts, seed, ids)


def _largest_over_signs(a: Tensor, norm: float) -> Tensor:
    """max ‖Aᵀs‖ over s in {−1, 1}ᵐ; s and −s are the same."""
    count = 2 ** (a.shape[1] - 1)
    bits = torch.arange(count, device=a.device).unsqueeze(1) >> torch.arange(a.shape[1], device=a.device)
    signs = 1 - 2 * (bits & 1).to(a.dtype)
    best = a.new_zeros(len(a))
    for part in signs.split(max(1, CAP // a[:, 0].numel())):
        best = torch.maximum(best, torch.linalg.vector_norm(part @ a, norm, dim=2).amax(1))
    return best


def _power_method(a: Tensor, p: float, q: float, steps: int, starts: int, seed: int, ids: Tensor) -> Tensor:
    """u ← dual_q*(A v), v ← dual_p(Aᵀu) from many u at once; no value falls, so that the last is the best of its start."""
    count, rows, _ = a.shape
    noise = ops.sample_lp_ball(a.new_empty(count, starts * rows), math.inf, seed=seed, sample_ids=ids)
    u = noise.reshape(count, starts, rows)
    longest = torch.linalg.vector_norm(a, CONJUGATES[p], dim=2).topk(min(rows, starts // 2), dim=1).indices
    u[:, : longest.shape[1]] = torch.nn.functional.one_hot(longest, rows).to(a.dtype)
    best = a.new_zeros(count, starts)
    for _ in range(steps):
        v = ops.dual_normalize((u @ a).flatten(0, 1), p).unflatten(0, (count, starts))
        step = ops.power_iteration_step((v @ a.mT).flatten(0, 1), CONJUGATES[q])
        u, values = step.direction.unflatten(0, (count, starts)), step.value.reshape(count, starts)
        before, best = best, torch.maximum(best, values)
        if bool((values <= before * (1 + 1e-12)).all()):  # a start that is behind may yet overtake the best
            break
    return best.amax(1)

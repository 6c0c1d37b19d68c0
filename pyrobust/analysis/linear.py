"""Linear classifiers in closed form: images on and beyond the boundary, and the nearest adversarial point.

Everything is computed and returned in float64, exactly but for rounding: the searches solve a piecewise-linear equation
between two of its sorted breakpoints. A result lies on the boundary, so which side a model finds it on is up to
rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust._checks import Bounds, Norm, check_bounds, check_inputs, check_labels, norm_name
from pyrobust.analysis.geometry import signed_distance, weight_norm


class NearestPoint(NamedTuple):
    """The distance (N,), inf where there is no such point, and the points like the inputs, the inputs themselves where
    the distance is 0 or inf. Both in float64."""

    distance: Tensor
    points: Tensor


def projected_image(inputs: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    """x − s w / ‖w‖₂ with s = (w·x + b) / ‖w‖₂: the nearest image in l2 on the boundary w·x + b = 0.

    Args:
        inputs: (N, …), of a floating dtype.
        weight: w, as many values as an input; not zero.
        bias: b, a number or a tensor of one.

    Returns:
        Like ``inputs``, in float64.

    Raises:
        TypeError, ValueError: naming the argument; ``weight`` or ``bias`` does not fit the inputs, or ``weight`` is zero.

    Source: seed 001, "Projected and mirror images" (there w is a unit vector and b = 0).
    """
    return _reflected(inputs, weight, bias, 1.0)


def mirror_image(inputs: Tensor, weight: Tensor, bias: float | Tensor = 0.0) -> Tensor:
    """x − 2 s w / ‖w‖₂ with s = (w·x + b) / ‖w‖₂: the image as far behind the boundary as x is before it, classified
    with the same confidence. Arguments and source as of :func:`projected_image`."""
    return _reflected(inputs, weight, bias, 2.0)


def _reflected(inputs: Tensor, weight: Tensor, bias: float | Tensor, times: float) -> Tensor:
    distance = signed_distance(inputs, weight, bias)
    unit = (weight.detach().double().flatten() / weight_norm(weight)).to(distance)
    across = distance.unsqueeze(1) * unit
    return inputs.detach().double() - times * across.reshape(inputs.shape)


def nearest_adversarial(
    inputs: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Norm = "l2",
    grouping: str = "value",
    bounds: Bounds | None = None,
) -> NearestPoint:
    """The nearest point that the classifier argmax(W x + b) does not give its label: min ‖r‖ over all other classes.

    Args:
        inputs: (N, …), inside ``bounds``.
        labels: int64 (N,).
        weight: W, (K, D), D the number of values of an input, K ≥ 2.
        bias: b, (K,); default 0.
        norm: "l0", "l1", "l2" or "linf" (or 0, 1, 2, inf).
        grouping: for l0: "value", or "pixel": the C values at a place of (N, C, …) count once.
        bounds: (low, high) that the point must keep, or None.

    Returns:
        NearestPoint; distance 0 for inputs that are misclassified, or on the boundary, already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: K − 1 sorts of N rows of D values.
    Source: see :func:`nearest_in_half_space`; a linear classifier's errors are the union of K − 1 half-spaces.
    """
    if weight.ndim != 2 or len(weight) < 2 or weight.shape[1] != inputs[0].numel():
        raise ValueError(f"weight: expected (K, {inputs[0].numel()}) with K >= 2, got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: expected ({len(weight)},), got {tuple(bias.shape)}")
    check_labels(labels, inputs, len(weight))
    w = weight.detach().to(inputs.device, torch.float64)
    b = w.new_zeros(len(w)) if bias is None else bias.detach().to(w)
    best = NearestPoint(
        torch.full(labels.shape, math.inf, dtype=w.dtype, device=w.device), inputs.detach().double().clone()
    )
    for other in range(len(w)):
        found = nearest_in_half_space(
            inputs, w[labels] - w[other], b[labels] - b[other], norm=norm, grouping=grouping, bounds=bounds
        )
        nearer = (labels != other) & (found.distance < best.distance)
        best = NearestPoint(
            torch.where(nearer, found.distance, best.distance),
            torch.where(_rows(nearer, inputs), found.points, best.points),
        )
    return best


def nearest_in_half_space(
    inputs: Tensor,
    weight: Tensor,
    offset: float | Tensor,
    *,
    norm: Norm = "l2",
    grouping: str = "value",
    bounds: Bounds | None = None,
) -> NearestPoint:
    """The nearest point of {w·x + b ≤ 0} ∩ bounds to each input.

    With need = (w·x + b)₊ and the room mᵢ of each value in the direction −sign(wᵢ), the moves sᵢ ≤ mᵢ are: linf:
    min(mᵢ, t); l2: min(mᵢ, t |wᵢ|), with t such that Σ |wᵢ| sᵢ = need; l1: all the room of the steepest values first;
    l0: all the room of the values (pixels) first that gain most, Σ |wᵢ| mᵢ, of the last only the share that is needed.

    Args:
        inputs: (N, …), inside ``bounds``.
        weight: w, as many values as an input, or one row for each.
        offset: b, a number, or one for each input.
        norm: "l0", "l1", "l2" or "linf" (or 0, 1, 2, inf).
        grouping: for l0: "value", or "pixel": the C values at a place of (N, C, …) count once.
        bounds: (low, high) that the point must keep, or None.

    Returns:
        NearestPoint.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: the continuous knapsack problem (Dantzig 1957); for l2 and linf with a box see Croce and Hein 2020 (FAB),
        §2.2. By Hölder's inequality the distance without a box is need / ‖w‖_q with 1/p + 1/q = 1 (seed 003, §3.2).
    """
    name = norm_name(norm)
    low, high = (-math.inf, math.inf) if bounds is None else check_bounds(bounds)
    check_inputs(inputs, (low, high))
    channels = _channels(inputs, name, grouping)
    x = inputs.detach().double().flatten(1)
    if weight.numel() != x.shape[1] and (weight.numel() != x.numel() or weight.shape[:1] != x.shape[:1]):
        raise ValueError(f"weight: expected {x.shape[1]} values, or as many a row, got shape {tuple(weight.shape)}")
    b = torch.as_tensor(offset, dtype=x.dtype, device=x.device).detach()
    if b.shape not in ((), x.shape[:1]):
        raise ValueError(f"offset: expected a number or shape ({len(x)},), got {tuple(b.shape)}")
    w = weight.detach().to(x).reshape(-1, x.shape[1]).expand_as(x)
    size = w.abs()
    need = ((w * x).sum(1) + b).clamp(min=0).unsqueeze(1)
    # No value ever has to move further, or gain more, than it would alone: that stands in where there is no bound.
    free = torch.where(w > 0, x - low, high - x)
    room = torch.minimum(free, need / size).masked_fill(w == 0, 0.0)
    gain = torch.minimum(size * free, need).masked_fill(w == 0, 0.0)
    if name == "l1":
        moves = room * _share_by_rank(gain, size, need)
    elif name == "l0":
        planes = gain.reshape(len(x), channels, -1).sum(1)
        moves = room * _share_by_rank(planes, planes, need).repeat(1, channels)
    else:
        pace = size if name == "l2" else torch.ones_like(size)
        moves = torch.minimum(room, pace * _time_to(need, room, pace, size))
    possible = (gain.sum(1) >= need.squeeze(1)) & (need.squeeze(1) > 0)
    shift = torch.where(possible.unsqueeze(1), -moves.copysign(w), 0.0)
    distance = _length(shift, name, channels).masked_fill(~possible & (need.squeeze(1) > 0), math.inf)
    return NearestPoint(distance, (x + shift).clamp(low, high).reshape(inputs.shape))


def _share_by_rank(gain: Tensor, rank: Tensor, need: Tensor) -> Tensor:
    """The share in [0, 1] of each gain that is used when those of the highest rank are used up first until they sum to
    ``need``."""
    order = rank.argsort(dim=1, descending=True, stable=True)
    ordered = gain.gather(1, order)
    before = torch.nn.functional.pad(ordered.cumsum(1)[:, :-1], (1, 0))
    share = ((need - before) / ordered).clamp(0.0, 1.0).nan_to_num(0.0)
    return torch.zeros_like(gain).scatter(1, order, share)


def _time_to(need: Tensor, room: Tensor, pace: Tensor, size: Tensor) -> Tensor:
    """t (N, 1) with Σ size · min(room, t · pace) = need; the last breakpoint where there is none.

    The sum is linear between the times room / pace at which values come to the end of their room.
    """
    times, order = (room / pace).masked_fill(size == 0, 0.0).sort(dim=1)
    ended = (size * room).gather(1, order).cumsum(1)
    rate = (size * pace).gather(1, order)
    rates = rate.flip(1).cumsum(1).flip(1)  # of the values that are still moving before each breakpoint
    reached = (ended + times * (rates - rate)) >= need
    index = reached.to(torch.uint8).argmax(1, keepdim=True)  # 0 as well where none is reached
    used = (ended - (size * room).gather(1, order)).gather(1, index)
    time = (need - used) / rates.gather(1, index)
    return torch.where(reached.any(1, keepdim=True), time, times[:, -1:])


def _length(shift: Tensor, name: str, channels: int) -> Tensor:
    if name == "l0":
        return (shift.reshape(len(shift), channels, -1) != 0).any(1).sum(1).to(shift.dtype)
    return torch.linalg.vector_norm(shift, {"l1": 1, "l2": 2, "linf": math.inf}[name], dim=1)


def _channels(inputs: Tensor, name: str, grouping: str) -> int:
    if grouping not in ("value", "pixel") or (grouping == "pixel" and (name != "l0" or inputs.ndim < 3)):
        raise ValueError(
            f'grouping: expected "value", or "pixel" for norm "l0" and inputs (N, C, …); '
            f"got {grouping!r} with norm {name!r} and {tuple(inputs.shape)}"
        )
    return inputs.shape[1] if grouping == "pixel" else 1


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))

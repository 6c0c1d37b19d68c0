"""HopSkipJump: a minimum-norm attack on the decision alone, by gradients estimated at the boundary."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, check_inputs, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, check_count, clean_logits, rows_like, undisturbed
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._queries import points_at_once, uniform
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_TRIES = 40  # random starts, half uniform noise and half of two values
_HALVINGS = 12  # of a step: a shorter one could not pay
Decide = Callable[..., Tensor]


@judged_in_float32
def hop_skip_jump(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    steps: int = 32,
    queries: int = 100,
    starts: Tensor | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x_t: bisection towards the input; v = Σ_b (φ_b − φ̄) u_b at x_t; then x_t + ξ v, ξ halved until adversarial.

    φ_b = ± 1 says whether x_t + δ u_b is adversarial, u_b random of unit l2 norm (from the sphere for l2, the cube for
    linf), clipped to ``bounds``. v is divided by its l2 norm, or its sign is taken for linf. δ = dist(x_t) / D, at the
    first step a tenth of the width; ξ = dist(x_t) / √t at first; there are queries · √t many u_b.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2. Only its decisions are used.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" or "linf" (or 2, inf).
        steps: gradient estimates.
        queries: of the first estimate, >= 1.
        starts: adversarial points to start from, like ``inputs``. Where they are not adversarial, and by default, random
            images are tried: uniform noise, and images of the two bounds alone. They rarely meet a given target.
        targeted: find the nearest point of the class ``labels``.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the draws, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) with each step's point on the boundary; the attack stops when it
            returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the nearest adversarial point met by bisection; the input itself where no start
        was adversarial, or where it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: forward passes alone: Σ_t queries · √t for the estimates, 12 a step for its length, about 1.5 log₂ D (2 log₂ D
    for linf, at most 24) a step for the bisection, and at most 41 at the start, where every 10 tries wait for the device.
    Source: Chen et al. 2020, algorithms 1 and 2; the decision-based attacks of seed 003, §2.4.3 (Brendel et al. 2018).
    """
    name = norm_name(norm, ("l2", "linf"))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    check_count(queries=queries)
    if starts is not None:
        if not isinstance(starts, Tensor) or starts.shape != inputs.shape or starts.device != inputs.device:
            raise ValueError(f"starts: expected a tensor like inputs, {tuple(inputs.shape)} on {inputs.device}")
        try:
            check_inputs(starts, bounds)
        except (TypeError, ValueError) as error:
            raise ValueError(str(error).replace("inputs", "starts", 1)) from None
    size = inputs[0].numel()
    halvings = min(24, math.ceil((1.5 if name == "l2" else 2) * math.log2(size)) + 1)

    def fools(points: Tensor, times: int = 1) -> Tensor:
        return is_adversarial(model(points), labels.repeat_interleave(times), targeted)

    with undisturbed(model, eval_mode), torch.no_grad():
        nearest = Nearest(inputs, is_adversarial(clean_logits(model, inputs, labels), labels, targeted))
        adv, found = _start(inputs, starts, fools, bounds, seed, sample_ids)
        draw = _TRIES
        for step in range(1, steps + 2):
            adv = _bisect(inputs, adv, fools, name, halvings)
            distance = ops.lp_norm(adv - inputs, name)
            nearest.offer(adv, distance, found)
            if callback is not None and callback(step - 1, SearchState(adv, found, nearest.adv, nearest.distance)):
                break
            if step > steps:
                break
            radius = distance / size if step > 1 else torch.full_like(distance, 0.1 * (bounds[1] - bounds[0]))
            total = int(queries * math.sqrt(step))
            direction, draw = _estimate(adv, fools, radius, name, total, bounds, seed, sample_ids, draw)
            adv = _jump(adv, direction, distance / math.sqrt(step), fools, bounds)
    return nearest.adv


def _start(
    inputs: Tensor, starts: Tensor | None, fools: Decide, bounds: Bounds, seed: int, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """The first adversarial point of each sample among ``starts`` and random images, and whether there is one."""
    low, high = bounds
    adv = inputs if starts is None else starts.to(inputs.dtype)
    found = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device) if starts is None else fools(adv)
    for attempt in range(_TRIES):
        if attempt % 10 == 0 and bool(found.all()):
            break
        draws = uniform(ids, inputs[0].numel(), seed, attempt)
        if attempt % 2:  # from nearly all low to nearly all high
            draws = (draws < attempt / _TRIES).float()
        image = (low + (high - low) * draws).clamp_(low, high).to(inputs.dtype).reshape(inputs.shape)
        hit = fools(image) & ~found
        adv = torch.where(rows_like(hit, adv), image, adv)
        found = found | hit
    return adv, found


def _bisect(inputs: Tensor, adv: Tensor, fools: Decide, norm: str, halvings: int) -> Tensor:
    """The adversarial end of the boundary between input and ``adv``: along the segment for l2, along the points that
    are clamped to the linf ball of a falling radius for linf."""
    upper = torch.ones(len(inputs), device=inputs.device, dtype=torch.promote_types(inputs.dtype, torch.float32))
    lower = torch.zeros_like(upper)
    far, reach = adv, ops.lp_norm(adv - inputs, norm)
    for _ in range(halvings):
        middle = (lower + upper) / 2
        if norm == "l2":
            point = torch.lerp(inputs.to(upper.dtype), far.to(upper.dtype), rows_like(middle, inputs)).to(inputs.dtype)
        else:
            radius = rows_like(middle * reach, inputs).to(inputs.dtype)
            point = torch.minimum(torch.maximum(far, inputs - radius), inputs + radius)
        hit = fools(point)
        adv = torch.where(rows_like(hit, adv), point, adv)
        upper, lower = torch.where(hit, middle, upper), torch.where(hit, lower, middle)
    return adv


def _estimate(
    adv: Tensor, fools: Decide, radius: Tensor, norm: str, total: int, bounds: Bounds, seed: int, ids: Tensor, draw: int
) -> tuple[Tensor, int]:
    """The direction in which the decision turns adversarial, from ``total`` queries; and the next draw's number."""
    count, size = len(adv), adv[0].numel()
    wide = radius.dtype
    flat = adv.reshape(count, 1, size).to(wide)
    signed, plain, balance = (torch.zeros(count, width, device=adv.device, dtype=wide) for width in (size, size, 1))
    block = points_at_once(size)
    for first in range(0, total, block):
        many = min(block, total - first)
        like = torch.empty(count, many * size, device=adv.device, dtype=wide)
        # Slices of a direction uniform on a large sphere are, normalised, uniform on the small one.
        noise = ops.sample_lp_ball(like, 2.0 if norm == "l2" else math.inf, seed=seed, sample_ids=ids, step=draw)
        noise = ops.dual_normalize_(noise.reshape(count * many, size), 2.0).reshape(count, many, size)
        points = (flat + noise * radius[:, None, None]).clamp_(*bounds).to(adv.dtype)
        decisions = fools(points.reshape(-1, *adv.shape[1:]), many).reshape(count, many).to(wide).mul_(2).sub_(1)
        moved = points.to(wide).sub_(flat)
        signed += torch.bmm(decisions.unsqueeze(1), moved).squeeze(1)
        plain += moved.sum(1)
        balance += decisions.sum(1, keepdim=True)
        draw += 1
    mean = balance / total
    estimate = signed - torch.where(mean.abs() < 1, mean, 0) * plain
    return ops.dual_normalize_(estimate, 2.0 if norm == "l2" else math.inf).reshape(adv.shape), draw


def _jump(adv: Tensor, direction: Tensor, length: Tensor, fools: Decide, bounds: Bounds) -> Tensor:
    """The longest of the halved steps that stays adversarial; where none does, no step."""
    result, moved = adv, torch.zeros(len(adv), dtype=torch.bool, device=adv.device)
    for _ in range(_HALVINGS):
        point = (adv + direction * rows_like(length, adv)).clamp_(*bounds).to(adv.dtype)
        hit = fools(point) & ~moved
        result = torch.where(rows_like(hit, adv), point, result)
        moved, length = moved | hit, length / 2
    return result


hop_skip_jump.norms = ("l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

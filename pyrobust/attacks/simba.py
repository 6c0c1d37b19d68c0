"""SimBA: greedy steps along the vectors of an orthonormal basis, accepted by the score of the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import (
    Callback,
    Model,
    check_call,
    check_number,
    check_positive,
    clean_logits,
    rows_like,
    undisturbed,
)
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._queries import offer_rows, score, unfinished, uniform
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_DROP_EVERY = 10
_STEP_SIZES = {"l2": 0.2, "linf": 0.05}


@judged_in_float32
def simba(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l2",
    basis: str = "dct",
    frequencies: float | None = None,
    steps: int = 1000,
    step_size: float | None = None,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """x ← the better of clip(x ± ε q), where it lowers the label's probability; q without replacement from the basis.

    For l2 the q have unit l2 norm, so that ‖x − input‖₂ ≤ ε √steps within one pass over the basis. For linf they have
    unit linf norm and the perturbation is clamped to ± ε. Both signs are queried together. A sample stops at its first
    adversarial point.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2. No gradient is taken.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l2" or "linf" (or 2, inf).
        basis: "dct": the discrete cosine transform over the last two dimensions of (N, C, H, W), each channel by
            itself (over the last one of other shapes); "pixel": single values.
        frequencies: for "dct": the share of lowest frequencies in each dimension that is drawn from, in (0, 1]; default
            1/8, at least one. Once all vectors are drawn, they are drawn again in another order.
        steps: vectors that are tried.
        step_size: ε > 0, in the units of the inputs; default 0.2 for l2 and 0.05 for linf, times the width of
            ``bounds``.
        targeted: raise the probability of the class ``labels`` until it is predicted.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the order of the vectors, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) with the samples that are still searched for; the attack stops
            when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample its first adversarial point; the input itself where there was none, or where it
        is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most 2 · steps + 1 forward passes a sample. Samples that are done are dropped every 10 steps.
    Source: Guo et al. 2019, algorithm 1 and §3 (ε = 0.2, frequencies 1/8); seed 003, §2.4.3.
    """
    name = norm_name(norm, tuple(_STEP_SIZES))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    if basis not in ("dct", "pixel"):
        raise ValueError(f'basis: expected "dct" or "pixel", got {basis!r}')
    if frequencies is not None and basis == "pixel":
        raise ValueError('frequencies: applies to basis "dct" alone')
    if frequencies is not None:
        check_number("frequencies", frequencies, 0, 1, above=True)
    if step_size is None:
        step_size = _STEP_SIZES[name] * (bounds[1] - bounds[0])
    else:
        check_positive(step_size=step_size)
    vectors = _Basis(inputs, None if basis == "pixel" else frequencies or 1 / 8)
    with undisturbed(model, eval_mode), torch.no_grad():
        clean = clean_logits(model, inputs, labels)
        done = is_adversarial(clean, labels, targeted)
        nearest = Nearest(inputs, done)
        rows, x, adv, y, ids = torch.arange(len(inputs), device=inputs.device), inputs, inputs, labels, sample_ids
        value = score(clean, labels, targeted)
        order = _order(ids, len(vectors), seed, 0)
        for step in range(steps):
            if step > 0 and step % len(vectors) == 0:
                order = _order(ids, len(vectors), seed, step // len(vectors))
            if step % _DROP_EVERY == 0:
                rows, x, adv, y, ids, order, value, done = unfinished(done, rows, x, adv, y, ids, order, value, done)
                if len(rows) == 0:
                    break
            move = vectors(order[:, step % len(vectors)], name).mul_(step_size)
            both = torch.stack([adv + move, adv - move])
            if name == "linf":
                both = torch.minimum(torch.maximum(both, x - step_size), x + step_size)
            both.clamp_(*bounds)
            logits = model(both.flatten(0, 1))
            values = score(logits, y.repeat(2), targeted).reshape(2, -1)
            hits = is_adversarial(logits, y.repeat(2), targeted).reshape(2, -1)
            up = torch.where(hits[0] == hits[1], values[0] <= values[1], hits[0])  # a success before a better score
            tried = torch.where(rows_like(up, x), both[0], both[1])
            hit, now = torch.where(up, hits[0], hits[1]), torch.where(up, values[0], values[1])
            hit = hit & ~done
            offer_rows(nearest, rows, tried, ops.lp_norm(tried - x, name), hit)
            better = (now < value) & ~done
            adv, value, done = (
                torch.where(rows_like(better, x), tried, adv),
                torch.where(better, now, value),
                done | hit,
            )
            if callback is not None and callback(
                step, SearchState(tried, hit, nearest.adv[rows], nearest.distance[rows])
            ):
                break
    return nearest.adv


def _order(ids: Tensor, count: int, seed: int, turn: int) -> Tensor:
    """(N, count): a random order of the basis for each sample."""
    return uniform(ids, count, seed, turn).argsort(dim=1, stable=True)


class _Basis:
    """The vectors of an orthonormal basis of the inputs' space, by number: (N,) int64 to (N, …)."""

    def __init__(self, inputs: Tensor, frequencies: float | None) -> None:
        shape = inputs.shape[1:]
        self.like = inputs
        self.height, self.width = (shape[-2] if len(shape) == 3 else 1), shape[-1]
        self.channels = inputs[0].numel() // (self.height * self.width)
        self.waves = None
        if frequencies is not None:
            self.waves = [_waves(size, frequencies, inputs) for size in (self.height, self.width)]

    def __len__(self) -> int:
        if self.waves is None:
            return self.channels * self.height * self.width
        return self.channels * len(self.waves[0]) * len(self.waves[1])

    def __call__(self, number: Tensor, norm: str) -> Tensor:
        """The vectors of these numbers, of unit l2 or linf norm."""
        out = self.like.new_zeros(len(number), self.channels, self.height, self.width)
        if self.waves is None:
            out.view(len(number), -1).scatter_(1, number.unsqueeze(1), 1.0)
        else:
            down, across = self.waves
            channel, place = number // (len(down) * len(across)), number % (len(down) * len(across))
            wave = down[place // len(across)].unsqueeze(2) * across[place % len(across)].unsqueeze(1)
            if norm == "linf":
                wave /= wave.abs().amax((1, 2), keepdim=True)
            out[torch.arange(len(number), device=out.device), channel] = wave.to(out.dtype)
        return out.reshape(-1, *self.like.shape[1:])


def _waves(size: int, frequencies: float, like: Tensor) -> Tensor:
    """(frequencies, size) in float32 at least: the lowest vectors of the orthonormal DCT-II."""
    count = max(1, int(frequencies * size))
    wide = torch.promote_types(like.dtype, torch.float32)
    number = torch.arange(count, device=like.device, dtype=wide).unsqueeze(1)
    place = torch.arange(size, device=like.device, dtype=wide) + 0.5
    waves = torch.cos(math.pi / size * number * place) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


simba.norms = ("l2", "linf")  # type: ignore[attr-defined]  # read by the evaluation before it calls

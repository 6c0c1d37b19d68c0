"""The one-pixel attack: differential evolution over the places and colours of a few pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, norm_name
from pyrobust.attacks._common import Callback, Model, check_call, clean_logits, undisturbed
from pyrobust.attacks._judge import judged_in_float32
from pyrobust.attacks._queries import below, offer_rows, points_at_once, score, unfinished, uniform
from pyrobust.attacks._search import Nearest, SearchState, is_adversarial

_DROP_EVERY = 5


@judged_in_float32
def one_pixel(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = "l0",
    pixels: int = 1,
    population: int = 400,
    steps: int = 100,
    mutation: float = 0.5,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    seed: int = 0,
    sample_ids: Tensor | None = None,
    callback: Callback | None = None,
    eval_mode: bool = True,
) -> Tensor:
    """Candidates are ``pixels`` places with their values; each generation cᵢ competes with c_r1 + F (c_r2 − c_r3).

    r1, r2, r3 and i are distinct; the child takes the place of its parent where the probability of the label is lower
    (that of the target higher). There is no crossover. The first generation has places uniform over the image and
    values from a normal distribution around the middle of ``bounds`` with half their width as deviation.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2. No gradient is taken.
        inputs: (N, C, H, W): a pixel is the C values at a place; for any other shape it is a single value.
        labels: int64 (N,): true labels, or targets where ``targeted``.
        norm: "l0" (or 0).
        pixels: how many pixels may be changed, >= 1.
        population: candidates a sample, >= 4.
        steps: generations after the first.
        mutation: F, > 0.
        targeted: raise the probability of the class ``labels`` until it is predicted.
        bounds: (low, high) of the inputs.
        seed, sample_ids: key the draws, with int64 sample_ids (N,) defaulting to 0 … N − 1.
        callback: called as callback(step, SearchState) after each generation with each searched-for sample's fittest
            candidate; the attack stops when it returns True.
        eval_mode: run the model in evaluation mode; False leaves its mode, and restores its buffers afterwards.

    Returns:
        Like ``inputs``: for each sample the fittest adversarial candidate of the generation that had the first; the
        input itself where there was none, or where it is misclassified already.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: at most (steps + 1) · population + 1 forward passes a sample. Samples that are done are dropped every 5
    generations.
    Source: Su et al. 2019, §3 (F = 0.5, 400 candidates, 100 generations); seed 003, §5.4.
    """
    norm_name(norm, ("l0",))
    inputs, bounds, sample_ids = check_call(inputs, labels, bounds, steps, 1, sample_ids, seed)
    for name, value, least in (("pixels", pixels, 1), ("population", population, 4)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an integer >= {least}, got {value!r}")
    if not 0 < mutation < math.inf:
        raise ValueError(f"mutation: expected a finite number > 0, got {mutation!r}")
    image = tuple(inputs.shape[1:]) if inputs.ndim == 4 else (1, 1, inputs[0].numel())
    grouping = "pixel" if inputs.ndim == 4 else "value"
    with undisturbed(model, eval_mode):
        done = is_adversarial(clean_logits(model, inputs, labels), labels, targeted)
        nearest = Nearest(inputs, done)
        rows, x, y, ids = torch.arange(len(inputs), device=inputs.device), inputs, labels, sample_ids
        members = _first_generation(ids, population, pixels, image[0], seed)
        scores = torch.full(members.shape[:2], math.inf, device=inputs.device)
        for step in range(steps + 1):
            if step % _DROP_EVERY == 0:
                rows, x, y, ids, members, scores, done = unfinished(done, rows, x, y, ids, members, scores, done)
                if len(rows) == 0:
                    break
            children = _children(members, mutation, ids, seed, step) if step > 0 else members
            values, hits = _try_all(model, x, y, children, image, bounds, targeted)
            fittest = torch.where(hits == hits.any(1, keepdim=True), values, math.inf).argmin(1)
            adv = _paint(x, _member(children, fittest).unsqueeze(1), image, bounds).squeeze(1)
            offer_rows(nearest, rows, adv, ops.lp_norm(adv - x, "l0", grouping), hits.any(1))
            done = done | hits.any(1)
            if callback is not None and callback(
                step, SearchState(adv, hits.any(1), nearest.adv[rows], nearest.distance[rows])
            ):
                break
            better = values < scores
            members = torch.where(better[..., None, None], children, members)
            scores = torch.where(better, values, scores)
    return nearest.adv


def _first_generation(ids: Tensor, population: int, pixels: int, channels: int, seed: int) -> Tensor:
    """(N, population, pixels, 2 + channels) in [0, 1]: row, column, values."""
    draws = uniform(ids, population * pixels * (2 + channels), seed, 0)
    draws = draws.reshape(len(ids), population, pixels, 2 + channels)
    values = draws[..., 2:]
    values.copy_((0.5 + 0.5 * math.sqrt(2) * torch.erfinv(2 * values - 1)).clamp_(0, 1))
    return draws


def _children(members: Tensor, mutation: float, ids: Tensor, seed: int, step: int) -> Tensor:
    """c_r1 + F (c_r2 − c_r3) for every member, with three others that are drawn as distinct distances around the ring
    of members."""
    size = members.shape[1]
    draws = uniform(ids, 3 * size, seed, step).reshape(len(ids), 3, size)
    first = 1 + below(draws[:, 0], size - 1)
    second = 1 + below(draws[:, 1], size - 2)
    second = second + (second >= first)
    third = 1 + below(draws[:, 2], size - 3)
    third = third + (third >= torch.minimum(first, second))
    third = third + (third >= torch.maximum(first, second))
    place = torch.arange(size, device=ids.device)
    one, two, three = (_member(members, (place + distance) % size) for distance in (first, second, third))
    return one.add(two.sub_(three), alpha=mutation).clamp_(0, 1)


def _member(members: Tensor, index: Tensor) -> Tensor:
    """Members by index: (N,) or (N, k), sample by sample."""
    sample = torch.arange(len(members), device=members.device)
    return members[sample.reshape(-1, *[1] * (index.ndim - 1)), index]


def _paint(x: Tensor, members: Tensor, image: tuple[int, ...], bounds: Bounds) -> Tensor:
    """The points (n, k, …) of k members of each sample: its pixels, written one after another."""
    channels, height, width = image
    points = x.unsqueeze(1).repeat(1, members.shape[1], *[1] * (x.ndim - 1))
    flat = points.view(*members.shape[:2], channels, height * width)
    values = (bounds[0] + (bounds[1] - bounds[0]) * members[..., 2:]).clamp_(*bounds).to(x.dtype)
    places = below(members[..., 0], height) * width + below(members[..., 1], width)
    for pixel in range(members.shape[2]):
        at = places[:, :, pixel, None, None].expand(-1, -1, channels, 1)
        flat.scatter_(3, at, values[:, :, pixel, :, None])
    return points


@torch.no_grad()
def _try_all(
    model: Model, x: Tensor, labels: Tensor, members: Tensor, image: tuple[int, ...], bounds: Bounds, targeted: bool
) -> tuple[Tensor, Tensor]:
    """(n, k) the score of each member, and whether it is adversarial."""
    scores, hits = [], []
    for part in members.split(points_at_once(x[0].numel()), 1):
        logits = model(_paint(x, part, image, bounds).flatten(0, 1))
        each = labels.repeat_interleave(part.shape[1])
        scores.append(score(logits, each, targeted).reshape(part.shape[:2]))
        hits.append(is_adversarial(logits, each, targeted).reshape(part.shape[:2]))
    return torch.cat(scores, 1), torch.cat(hits, 1)


one_pixel.norms = ("l0",)  # type: ignore[attr-defined]  # read by the evaluation before it calls

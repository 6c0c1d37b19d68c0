"""Gradients of several logits at once, and the class boundary that they say is nearest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.attacks._common import FORWARDS, Model, differentiating, gradient, rows_like

_CHUNK = 2**24  # gradient values that one batched backward pass may make


def _rows_of_chunk(point: Tensor) -> int:
    """How many rows of the Jacobian one backward pass takes.

    On the CPU one: a batched pass falls out of the caches (measured on a CIFAR network: 9 rows at batch 64 take 0.41 s one
    by one, 0.80 s batched, and 1.68 s when the batch is repeated instead). On a GPU as many as the cap on memory allows.
    """
    return 1 if point.device.type == "cpu" else max(1, _CHUNK // point.numel())


def pull_back(
    logits: Tensor,
    point: Tensor,
    seeds: Tensor,
    *,
    keep: bool = False,
    batched: bool = True,
    again: Callable[[], tuple[Tensor, Tensor]] | None = None,
) -> Iterator[Tensor]:
    """The gradients of ⟨seed, logits⟩ for seeds (k, N, K), in chunks (c, N, …) whose lengths add up to k.

    Args:
        keep: the graph for another pass.
        batched: take several at once where that is faster.
        again: gives (point, logits) once more: the graph of a model that torch.compile made may be good for one pass alone.
    """
    chunk, start, once = _rows_of_chunk(point) if batched else 1, 0, False
    while start < len(seeds):
        part = seeds[start : start + chunk]
        if len(part) > 1:
            try:
                (rows,) = torch.autograd.grad(logits, point, part, retain_graph=True, is_grads_batched=True)
            except RuntimeError as error:  # vmap knows no rule for an operation of the model, or memory ran out
                reason = f"the model's backward pass cannot be batched over classes, so it runs once a class: {error}"
                warnings.warn(reason, stacklevel=2)
                chunk = 1
                continue
        else:
            if once and again is not None:
                point, logits = again()
            try:
                more = (keep or start + 1 < len(seeds)) and not once
                row = gradient(logits, point, part[0], retain_graph=more)
            except RuntimeError as error:
                if again is None or once or "donated buffer" not in str(error):
                    raise
                once = True
                continue
            rows = row.unsqueeze(0)
        yield rows
        start += len(part)


def class_gradients(model: Model, points: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The logits, and the gradients of several of them, by one forward pass (of a compiled model, some more).

    Args:
        model: from (N, …) to logits (N, K).
        points: (N, …).
        classes: int64 (N, k): whose logits' gradients, sample by sample; default all, 0 … K − 1.

    Returns:
        (logits (N, K), gradients (N, k, …)), detached. Costs k gradients a sample.
    """
    point, logits = forward(model, points)
    if classes is None:
        classes = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    seeds = torch.nn.functional.one_hot(classes.T, logits.shape[1]).to(logits.dtype)
    rows = [row for chunk in pull_back(logits, point, seeds, again=lambda: forward(model, points)) for row in chunk]
    return logits.detach(), torch.stack(rows, 1)


def forward(model: Model, points: Tensor) -> tuple[Tensor, Tensor]:
    """(point, logits): a leaf to differentiate by, and what depends on it."""
    point = points.detach().requires_grad_()
    with differentiating():
        return point, model(point)


class Boundary(NamedTuple):
    """The linear model of one boundary, of class j against the label: gap + ⟨normal, x⟩, in float32 at least.

    Attributes:
        logits: (N, K) at the point.
        gap: (N,) z_j − z_label, below 0 while the label wins.
        normal: (N, …) the gradient of the gap.
        slope: (N,) the norm of ``normal``.
    """

    logits: Tensor
    gap: Tensor
    normal: Tensor
    slope: Tensor


def nearest_boundary(
    model: Model, points: Tensor, labels: Tensor, classes: Tensor, slope_norm: str, follow: bool = False
) -> Boundary:
    """The boundary j with the least |gap| / ‖normal‖ of its linear model, in one forward pass (of a compiled model, some
    more) and k gradients a sample, at most.

    Args:
        model: from (N, …) to logits (N, K).
        points: (N, …).
        labels: int64 (N,).
        classes: int64 (N, k): the classes to compare, none of them the label.
        slope_norm: of the normal: the dual of the norm in which distance is measured.
        follow: where a class is ahead of the label, take the one furthest ahead instead. On the CPU, where enough samples have
            one, these take one gradient, and the others another forward pass; not in training mode, where samples depend on
            the batch.
    """
    point, logits = forward(model, points)
    values = logits.detach().to(torch.promote_types(points.dtype, torch.float32))
    gaps = (values.gather(1, classes) - values.gather(1, labels.unsqueeze(1))).T  # (k, N)
    ahead = (gaps > 0).any(0) & follow
    if follow and points.device.type == "cpu" and not getattr(model, "training", False):  # looking is free
        others = (~ahead).nonzero().squeeze(1)
        saved = (len(points) - len(others)) * (classes.shape[1] - 1)
        if (FORWARDS - 1) * saved > len(others):
            chosen = gaps.masked_fill(gaps.isnan(), -math.inf).argmax(0, keepdim=True).where(ahead, 0)
            at = _nearest(
                model, point, logits, labels, classes.gather(1, chosen.T), slope_norm, gaps.gather(0, chosen), ahead
            )
            if len(others) == 0:
                return at
            rest = nearest_boundary(model, points[others], labels[others], classes[others, 1:], slope_norm)
            return _nearer(at, others, rest)
    return _nearest(model, point, logits, labels, classes, slope_norm, gaps, ahead)


def _nearer(at: Boundary, rows: Tensor, other: Boundary) -> Boundary:
    """The first boundary, or in these rows the other one where that is nearer."""
    mine, theirs = at.gap[rows].abs() / at.slope[rows], other.gap.abs() / other.slope
    chosen = (theirs < mine) | mine.isnan()
    where = (rows[chosen],)
    return Boundary(
        at.logits,
        at.gap.index_put(where, other.gap[chosen]),
        at.normal.index_put(where, other.normal[chosen]),
        at.slope.index_put(where, other.slope[chosen]),
    )


def _nearest(
    model: Model,
    point: Tensor,
    logits: Tensor,
    labels: Tensor,
    classes: Tensor,
    slope_norm: str,
    gaps: Tensor,
    ahead: Tensor,
) -> Boundary:
    """Of the classes (N, k) with these gaps (k, N) the nearest, or where ``ahead`` the one furthest ahead, from the graph of one
    forward pass."""
    ones = torch.ones_like(classes.T, dtype=logits.dtype).unsqueeze(2)
    seeds = logits.new_zeros(classes.shape[1], *logits.shape).scatter_(2, classes.T.unsqueeze(2), ones)
    seeds.scatter_(2, labels.view(1, -1, 1).expand(len(seeds), -1, 1), -ones)
    wide = gaps.dtype
    rank = gap = normal = slope = None
    start = 0
    for rows in pull_back(logits, point, seeds, again=lambda: forward(model, point)):
        for row, row_gap in zip(rows, gaps[start : start + len(rows)], strict=True):
            row_slope = ops.lp_norm(row, slope_norm).to(wide)
            row_rank = torch.where(ahead, -row_gap, row_gap.abs() / row_slope)  # inf, or NaN, for a normal of zeros
            if rank is None or gap is None or normal is None or slope is None:
                rank, gap, normal, slope = row_rank, row_gap, row, row_slope
                continue
            nearer = (row_rank < rank) | rank.isnan()
            normal = torch.where(rows_like(nearer, row), row, normal)
            rank, gap, slope = (
                torch.where(nearer, new, old) for new, old in ((row_rank, rank), (row_gap, gap), (row_slope, slope))
            )
        start += len(rows)
    assert gap is not None
    assert normal is not None
    assert slope is not None
    return Boundary(logits.detach(), gap, normal.to(wide), slope)

"""Which models are fooled by whose adversarial examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import Bounds, check_bounds, check_inputs, check_labels, check_logits
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import Model, check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TransferMatrix:
    """What :func:`transfer_matrix` found, for S models: rows are sources, columns targets.

    Attributes:
        names: of the models.
        accuracy: float64 (S,): share of all samples that a model gets right.
        samples: int64 (S, S): how many samples both source and target get right; all shares below are of these.
        success: float64 (S, S): share that the target mistakes at the points made on the source; on the diagonal the white-box
            success rate. NaN where there are no samples.
        white_box: float64 (S, S): share of the same samples that the target mistakes at the points made on itself.
    """

    names: tuple[str, ...]
    accuracy: Tensor
    samples: Tensor
    success: Tensor
    white_box: Tensor

    @property
    def gap(self) -> Tensor:
        """white_box − success: what an attacker loses who has the source instead of the target; 0 on the diagonal."""
        return self.white_box - self.success

    def plot(self) -> Figure:
        """The success rates and the gaps as annotated matrices."""
        from pyrobust.analysis._draw_transfer import draw_transfer

        return draw_transfer(self)


def transfer_matrix(
    models: Mapping[str, Model],
    inputs: Tensor,
    labels: Tensor,
    *,
    attack: Callable[..., Tensor],
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    seed: int = 0,
    work: Work | None = None,
) -> TransferMatrix:
    """The points attack(source, inputs, labels) of every model, shown to every model.

    Points at the very boundary of a model seldom fool another one: attacks within a budget transfer better than those that
    minimise a norm. :func:`pyrobust.attacks.transfer` is the attack that uses one such pair.

    Args:
        models: by name; each from (N, …) to logits (N, K), the same K ≥ 2; run in evaluation mode.
        inputs: (N, …) inside ``bounds``.
        labels: int64 (N,).
        attack: a function of :mod:`pyrobust.attacks`, or with its signature; its own arguments are bound beforehand, as in
            functools.partial(pgd, eps=8 / 255). It gets bounds, seed and sample_ids by name.
        bounds: (low, high) of the inputs; points outside them, or not finite, fool nobody.
        batch_size: samples a pass.
        seed: of the attack.
        work: progress and resume.

    Raises:
        TypeError, ValueError: naming the argument, or from ``attack``.

    Cost: the attack once a model, and S² + S forward passes.
    Source: Szegedy et al. 2014, §4.2; Papernot et al. 2017; seed 003, §2.4.3.
    """
    bounds = check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_labels(labels, inputs)
    check_count(batch_size=batch_size)
    if not models:
        raise ValueError("models: expected at least one")
    if not callable(attack):
        raise ValueError(f"attack: expected a callable, got {attack!r}")

    def compute(ids: Tensor) -> dict[str, Tensor]:
        x, y = inputs[ids].detach(), labels[ids]
        with torch.no_grad():
            logits = [model(x) for model in models.values()]
        for found in logits:
            check_labels(labels, inputs, check_logits(found, len(ids)))
        correct = torch.stack([found.argmax(1) == y for found in logits], 1)
        rows = []
        for source in models.values():
            adv = attack(source, x, y, bounds=bounds, seed=seed, sample_ids=ids)
            if not isinstance(adv, Tensor) or adv.shape != x.shape or adv.dtype != x.dtype:
                got = f"{tuple(adv.shape)} of {adv.dtype}" if isinstance(adv, Tensor) else type(adv).__name__
                raise ValueError(f"attack: expected a result like inputs, got {got}")
            inside = ((adv >= bounds[0]) & (adv <= bounds[1])).flatten(1).all(1)
            rows.append(torch.stack([_mistaken(target, adv, y) & inside for target in models.values()], 1))
        return {"correct": correct, "fooled": torch.stack(rows, 1)}

    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(undisturbed(model))
        parts = torch.arange(len(inputs), device=inputs.device).split(batch_size)
        found = joined((work or Work()).map("transfer", parts, compute))
    correct, fooled = found["correct"], found["fooled"]
    both = correct.unsqueeze(2) & correct.unsqueeze(1)
    own = fooled.diagonal(dim1=1, dim2=2).unsqueeze(1)
    samples = both.sum(0)
    shares = [torch.where(samples > 0, (both & hit).sum(0).double() / samples, math.nan) for hit in (fooled, own)]
    return TransferMatrix(tuple(models), correct.double().mean(0), samples, *shares)


@torch.no_grad()
def _mistaken(model: Model, points: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: the logits are finite, and the prediction is not the label."""
    logits = model(points)
    return logits.isfinite().all(1) & (logits.argmax(1) != labels)

"""How far away the adversarial examples of a model are, sample by sample, and which classes they are taken for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust import ops
from pyrobust._checks import Bounds, Norm, check_bounds, check_inputs, check_labels, check_logits, norm_name
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import Model, check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class RobustnessDistribution:
    """What :func:`robustness_distribution` found, on the CPU; "correct" are the samples that the model gets right as they are.

    Attributes:
        norm: what distances are measured in.
        classes: K.
        labels: int64 (N,).
        predictions: int64 (N,): the class of the sample as it is.
        found: int64 (N,): the class of its adversarial example; the label where none was found, and where not correct.
        distances: float64 (N,): ‖r‖; 0 where not correct, inf where no adversarial example was found.
        ratios: float64 (N,): ‖r‖ / ‖x‖, likewise.
    """

    norm: str
    classes: int
    labels: Tensor
    predictions: Tensor
    found: Tensor
    distances: Tensor
    ratios: Tensor

    @property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return self.predictions == self.labels

    @property
    def broken(self) -> Tensor:
        """(N,) bool: correct, and an adversarial example was found."""
        return self.correct & self.distances.isfinite()

    @property
    def success(self) -> float:
        """The share of the correct samples that are broken; NaN where none is correct."""
        return self.broken.sum().item() / n if (n := int(self.correct.sum())) else math.nan

    @property
    def rho(self) -> float:
        """ρ_adv = mean of ‖r‖ / ‖x‖ over the broken samples, to be read beside ``success``; NaN where there are none."""
        return self.ratios[self.broken].mean().item()

    def density(self, at: Tensor) -> Tensor:
        """The density of ρ over the correct samples at float64 (M,) places: (1 / n) Σ φ((at − ρᵢ) / h) / h over the broken ones, n
        the number of correct ones.

        Over the whole line it integrates to ``success``, so that failures are not passed over. The width is Scott's
        h = s m^(−1/5), s the standard deviation of the m broken samples' ρ. NaN where h is 0 or not defined.
        """
        ratios = self.ratios[self.broken]
        width = ratios.std() * len(ratios) ** -0.2 if len(ratios) > 1 else ratios.new_tensor(math.nan)
        z = (at.to(ratios).unsqueeze(1) - ratios) / torch.where(width > 0, width, math.nan)
        return z.square().div(-2).exp().sum(1) / (math.sqrt(2 * math.pi) * width * self.correct.sum())

    def quantiles(self, levels: Sequence[float] = LEVELS) -> Tensor:
        """float64 (K + 1, len(levels)): by class, and in the last row of all, the smallest distance within which that share of the
        correct samples is broken; inf where fewer are, NaN for a class without correct samples.

        Raises:
            ValueError: a level is not in (0, 1].
        """
        if not all(0 < level <= 1 for level in levels):
            raise ValueError(f"levels: expected shares in (0, 1], got {levels!r}")
        table = torch.full((self.classes + 1, len(levels)), math.nan, dtype=torch.float64)
        for row in range(self.classes + 1):
            of_class = self.labels == row if row < self.classes else torch.ones_like(self.correct)
            distances = self.distances[self.correct & of_class].sort().values
            if len(distances):
                # Rounding may carry level · n past a whole number.
                ranks = [max(math.ceil(level * len(distances) - 1e-9), 1) - 1 for level in levels]
                table[row] = distances[ranks]
        return table

    def confusion(self) -> Tensor:
        """int64 (K, K): correct samples by class (row) and class of their adversarial example (column); on the diagonal are those
        for which none was found. A row adds up to the correct samples of its class."""
        pairs = (self.labels * self.classes + self.found)[self.correct]
        return torch.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)

    def plot(self) -> Figure:
        """The histogram and density of ρ, the quantiles of the distances by class, and the confusion matrix."""
        from pyrobust.analysis._draw_distributions import draw_distribution

        return draw_distribution(self)


def plot_densities(distributions: Mapping[str, RobustnessDistribution]) -> Figure:
    """The densities of ρ of several models, or attacks, by name (seed 003, fig. 3.6).

    Raises:
        ValueError: there are none, or not all are of the same norm.
    """
    from pyrobust.analysis._draw_distributions import draw_densities

    if len({one.norm for one in distributions.values()}) != 1:
        raise ValueError("distributions: expected at least one, all of the same norm")
    return draw_densities(distributions)


def robustness_distribution(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    adversarials: Tensor,
    *,
    norm: Norm = "l2",
    bounds: Bounds = (0.0, 1.0),
    batch_size: int = 128,
    work: Work | None = None,
) -> RobustnessDistribution:
    """‖x' − x‖ and ‖x' − x‖ / ‖x‖ in float64, for the points x' of any attack that the model gives another class.

    A point that is not finite, leaves ``bounds``, or is given its label counts as not found.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        inputs: (N, …) inside ``bounds``; none of them all zeros.
        labels: int64 (N,).
        adversarials: like ``inputs``: a point for each, as attacks return them; best of a minimum-norm attack.
        norm: "l2", "l1" or "linf" (or 2, 1, inf).
        bounds: (low, high) of the inputs.
        batch_size: samples a pass.
        work: progress and resume.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: two forward passes.
    Source: seed 003, eq. 3.20 and fig. 3.6. There failures of the attack are not told apart; here they never enter ρ.
    """
    norm = norm_name(norm, ("l1", "l2", "linf"))
    bounds = check_bounds(bounds)
    check_inputs(inputs, bounds)
    check_labels(labels, inputs)
    check_count(batch_size=batch_size)
    if not isinstance(adversarials, Tensor) or (adversarials.shape, adversarials.dtype, adversarials.device) != (
        inputs.shape,
        inputs.dtype,
        inputs.device,
    ):
        raise ValueError(f"adversarials: expected {inputs.dtype} {tuple(inputs.shape)} on {inputs.device}, as inputs")
    if not bool(inputs.flatten(1).any(1).all()):
        raise ValueError("inputs: expected no sample of zeros alone, whose ratio has no denominator")

    def compute(ids: Tensor) -> dict[str, Tensor]:
        x, adv, y = inputs[ids].detach(), adversarials[ids].detach(), labels[ids]
        with torch.no_grad():
            clean, moved = model(x), model(adv)
        classes = check_logits(clean, len(ids))
        check_labels(labels, inputs, classes)
        inside = ((adv >= bounds[0]) & (adv <= bounds[1])).flatten(1).all(1) & moved.isfinite().all(1)
        correct = clean.argmax(1) == y
        broken = correct & inside & (moved.argmax(1) != y)
        length = ops.lp_norm((adv.double() - x.double()), norm)
        distance = torch.where(broken, length, torch.where(correct, math.inf, 0.0))
        return {
            "predictions": clean.argmax(1),
            "found": torch.where(broken, moved.argmax(1), y),
            "distances": distance,
            "ratios": distance / ops.lp_norm(x.double(), norm),
            "classes": torch.full_like(y, classes),
        }

    with undisturbed(model):
        parts = torch.arange(len(inputs), device=inputs.device).split(batch_size)
        found = joined((work or Work()).map("robustness distribution", parts, compute))
    return RobustnessDistribution(norm, int(found.pop("classes")[0]), labels.cpu(), **found)

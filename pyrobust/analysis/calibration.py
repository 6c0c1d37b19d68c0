"""How far a network's confidence is its accuracy, as it is and at the temperatures that put it right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import Model, check_inputs, check_labels, check_logits
from pyrobust.analysis.jacobian import ANY
from pyrobust.analysis.temperature import softmax_temperature
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import check_count, check_positive, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy by bin, of :func:`reliability`, in float64.

    Attributes:
        temperature: that the logits were divided by.
        edges: (B + 1,) of the bins of confidence; a bin holds its upper edge.
        counts: int64 (B,) samples in each bin.
        confidence, accuracy: (B,) means in each bin; NaN in an empty one.
        ece: the expected calibration error Σ_b (n_b / N) |accuracy_b − confidence_b|.
        nll: mean of −log p_y.
    """

    temperature: float
    edges: Tensor
    counts: Tensor
    confidence: Tensor
    accuracy: Tensor
    ece: float
    nll: float

    def plot(self) -> Figure:
        """The reliability diagram: accuracy over confidence, and how many samples each bin holds."""
        from pyrobust.analysis._draw_calibration import draw_reliability

        return draw_reliability({"": self})


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibration` found.

    Attributes:
        plain: of the logits as they are.
        scaled: at the temperature of the least negative log-likelihood; None where no finite temperature above 0 has it.
        median: at the temperature of a median confidence of 0.95; None where ties allow none.
    """

    plain: Reliability
    scaled: Reliability | None
    median: Reliability | None

    def plot(self) -> Figure:
        """Reliability diagrams: accuracy over confidence, and how many samples each bin holds."""
        from pyrobust.analysis._draw_calibration import draw_calibration

        return draw_calibration(self)


def calibration(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    bins: int = 15,
    batch_size: int = 128,
    work: Work | None = None,
) -> Calibration:
    """The reliability of max_i softmax(z / t)_i at t = 1, at :func:`nll_temperature` and at :func:`softmax_temperature`.

    Both temperatures are fitted to the very samples that are shown.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2.
        inputs: (N, …).
        labels: int64 (N,).
        bins: of equal width over [0, 1].
        batch_size: samples a pass.
        work: progress and resume.

    Raises:
        TypeError, ValueError: naming the argument.

    Cost: a forward pass.
    Source: Guo et al. 2017, §2 and §4.2 (seed 001, ref. 29); seed 001, footnotes 9 and 10 (corrected).
    """
    check_inputs(inputs, ANY)
    check_labels(labels, inputs)
    check_count(bins=bins, batch_size=batch_size)

    @torch.no_grad()
    def forward(ids: Tensor) -> dict[str, Tensor]:
        logits = model(inputs[ids])
        check_logits(logits, len(ids))
        return {"logits": logits}

    with undisturbed(model):
        ids = torch.arange(len(inputs), device=inputs.device)
        logits = joined((work or Work()).map("calibration", ids.split(batch_size), forward))["logits"]
    labels = labels.cpu()

    def at(temperature: float) -> Reliability:
        return reliability(logits, labels, temperature=temperature, bins=bins)

    best = nll_temperature(logits, labels)
    try:
        median = at(softmax_temperature(logits))
    except ValueError:  # ties
        median = None
    return Calibration(at(1.0), at(best) if 0 < best < math.inf else None, median)


def reliability(logits: Tensor, labels: Tensor, *, temperature: float = 1.0, bins: int = 15) -> Reliability:
    """Mean confidence max_i softmax(z / t)_i and accuracy of the samples in each bin of confidence.

    Args:
        logits: z, (N, K), K ≥ 2, finite.
        labels: int64 (N,).
        temperature: t > 0.
        bins: of equal width over [0, 1].

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Guo et al. 2017, §2 (eq. 3).
    """
    _check(logits, labels)
    check_count(bins=bins)
    check_positive(temperature=temperature)
    log_probs = (logits.detach().double() / temperature).log_softmax(1)
    confidence, prediction = log_probs.exp().max(1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=logits.device)
    place = torch.bucketize(confidence, edges[1:-1])  # edges[b] < confidence <= edges[b + 1]
    counts = torch.bincount(place, minlength=bins)
    sums = torch.zeros(2, bins, dtype=torch.float64, device=logits.device)
    sums.index_add_(1, place, torch.stack((confidence, (prediction == labels).double())))
    mean_confidence, accuracy = sums / counts
    nll = -log_probs.gather(1, labels.unsqueeze(1)).mean()
    ece = (sums[1] - sums[0]).abs().sum() / len(labels)
    return Reliability(float(temperature), edges, counts, mean_confidence, accuracy, float(ece), float(nll))


def nll_temperature(logits: Tensor, labels: Tensor) -> float:
    """argmin_t of the mean of −log softmax(z / t)_y.

    In β = 1/t it is convex, with the derivative mean(Σ_i p_i z_i − z_y), whose zero bisection finds.

    Args:
        logits: z, (N, K), K ≥ 2, finite.
        labels: int64 (N,).

    Returns:
        t, to a relative 1e-12; 0 where every sample is classified right, so that it falls all the way to t = 0, and inf where
        it falls all the way to t = ∞: the labels' logits are no larger than the others on average.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Guo et al. 2017, §4.2.
    """
    _check(logits, labels)
    z = logits.detach().double()
    gaps = z - z.gather(1, labels.unsqueeze(1))

    def slope(beta: float) -> float:
        return float(((beta * gaps).softmax(1) * gaps).sum(1).mean())

    if float(gaps.amax(1).sum()) == 0:
        return 0.0
    if slope(0.0) >= 0:
        return math.inf
    low = high = 1.0
    while slope(low) > 0:
        low /= 2
    while slope(high) < 0:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def _check(logits: Tensor, labels: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) < 1 or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"logits: expected shape (N, K) with N >= 1 and K >= 2, got {got}")
    if not bool(logits.isfinite().all()):
        raise ValueError("logits: expected finite values, got NaN or Inf")
    check_labels(labels, logits, logits.shape[1])

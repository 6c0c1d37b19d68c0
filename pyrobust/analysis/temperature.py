"""The softmax temperature that puts models of different logit scales on one scale of confidence."""

from __future__ import annotations

from torch import Tensor


def softmax_temperature(logits: Tensor, confidence: float = 0.95) -> float:
    """The temperature t at which the median over samples of max_i softmax(z / t)_i is ``confidence``.

    The largest probability of a sample falls as t rises, so the median does, and bisection finds the one t.

    Args:
        logits: (N, K), K ≥ 2, finite: of the test set.
        confidence: in (1 / K, 1).

    Returns:
        t, to a relative 1e-12. Of an even number of samples the lower of the two middle values is the median.

    Raises:
        ValueError: an argument is not as above, or the logits tie in so many samples that no t gives the confidence.

    Source: seed 001, footnotes 9 and 10 (corrected).
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) < 1 or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"logits: expected shape (N, K) with N >= 1 and K >= 2, got {got}")
    if not bool(logits.isfinite().all()):
        raise ValueError("logits: expected finite values, got NaN or Inf")
    if not 1 / logits.shape[1] < confidence < 1:
        raise ValueError(f"confidence: expected a value in (1/{logits.shape[1]}, 1), got {confidence!r}")
    # max_i softmax(z)_i is 1 / Σ_j exp(z_j − max z).
    gaps = logits.detach().double() - logits.detach().double().amax(1, keepdim=True)

    def median(temperature: float) -> float:
        return (gaps / temperature).exp().sum(1).reciprocal().median().item()

    low = high = 1.0
    while median(low) < confidence:
        low /= 2
        if low < 1e-100:
            raise ValueError(f"logits: tie in too many samples for a median confidence of {confidence}")
    while median(high) > confidence:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if median(middle) >= confidence else (low, middle)
    return high

"""Linear classifiers of two classes, as two logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrobust.models._build import seeded, truncated_normal


def digits_linear(seed: int = 0) -> TwoClassLinear:
    """`TwoClassLinear` for two classes of scikit-learn's digits (``--data digits:7,3``): (N, 1, 8, 8) → (N, 2)."""
    return TwoClassLinear(64, seed=seed)


def mnist_linear(seed: int = 0) -> TwoClassLinear:
    """`TwoClassLinear` for two classes of MNIST (``--data mnist:7,3``): (N, 1, 28, 28) → (N, 2).

    Source: seed 000, §3.
    """
    return TwoClassLinear(784, seed=seed)


class TwoClassLinear(nn.Module):
    """s = w·x (+ b) as the logits (−s/2, s/2): class 1 where s > 0, else class 0.

    Their difference is s and they sum to 0, so neither class is favoured by what is computed from each logit alone.
    With y = +1 for class 1 and −1 for class 0, the margin is y s, the cross-entropy of the logits log(1 + e^(−y s)) (so
    cross-entropy training is logistic regression), and the probability of class 1 the sigmoid of s.

    Args:
        features: D, the number of values of an input.
        bias: learn b; the linear models of seed 000 have none.
        binarised: use sign(w) · mean|w| in place of w. Its gradient goes straight through to w; mean|w| is taken as a
            constant. A weight of exactly 0 stays 0.
        seed: of the initial weights, N(0, 0.1²) cut off at two standard deviations; b starts at 0.

    Attributes:
        weight: w as it is trained, (1, D), which the weight decays of :mod:`pyrobust.training` act on.
        bias: b, (1,), or None.

    Raises:
        ValueError: ``features`` is below 1.

    Source: seed 000, §3 and eq. 1, and its published code (binary weights after Rastegari et al. 2016).
    """

    def __init__(self, features: int, *, bias: bool = False, binarised: bool = False, seed: int = 0) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features: expected an integer >= 1, got {features}")
        self.binarised = binarised
        self.weight = nn.Parameter(seeded(seed, lambda: truncated_normal(0.1)(torch.empty(1, features))))
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    @property
    def direction(self) -> Tensor:
        """The w that inputs are multiplied by, (1, D): the binary weights where it is ``binarised``."""
        if not self.binarised:
            return self.weight
        fixed = self.weight.detach()
        # The second part is 0, so that the value is the binary weight to the bit.
        return fixed.sign() * fixed.abs().mean() + (self.weight - fixed)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, …) with D values each → (N, 2)."""
        score = F.linear(inputs.flatten(1), self.direction, self.bias)
        return torch.cat([-score, score], dim=1) / 2

    @torch.no_grad()
    def initialise_as_expert(self, inputs: Tensor, labels: Tensor) -> TwoClassLinear:
        """w ← μ₁ − μ₀, the difference of the classes' means; returns self.

        With a bias, b ← −w·(μ₀ + μ₁)/2, which is the nearest-centroid classifier.

        Args:
            inputs: (N, …) with D values each.
            labels: int64 (N,), 0 or 1, both present.

        Raises:
            ValueError: a class is missing, or there are others.

        Source: seed 000, §3 ("expert initialization", class 1 the threes and class 0 the sevens); for the bias see seed
            001, "nearest centroid classifier".
        """
        present = labels.unique().tolist()
        if present != [0, 1]:
            raise ValueError(f"labels: expected both 0 and 1 and no others, got {present}")
        rows = inputs.flatten(1)
        low, high = (rows[labels == label].mean(0, dtype=torch.float64) for label in (0, 1))
        self.weight.copy_((high - low).unsqueeze(0))
        if self.bias is not None:
            self.bias.fill_(-(high - low).dot(low + high) / 2)
        return self

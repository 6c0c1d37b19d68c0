"""The one type that every loader returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Data:
    """A named data set: inputs of shape (N, C, H, W) or (N, D) in [0, 1], labels int64 of shape (N,).

    Attributes:
        name: what reports call it.
        test: (inputs, labels) to evaluate on.
        train: (inputs, labels) to train on, or None where the source has no training part.
    """

    name: str
    test: tuple[Tensor, Tensor]
    train: tuple[Tensor, Tensor] | None = None

    def pair(self, first: int, second: int) -> Data:
        """The samples of two classes, relabelled: 0 for ``first``, 1 for ``second``.

        Raises:
            ValueError: the two are the same, or a part has none of either.
        """

        def two(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            inputs, labels = part
            is_first, is_second = labels == first, labels == second
            if first == second or not (is_first.any() and is_second.any()):
                raise ValueError(f"classes: expected two of those in {self.name}, got {first} and {second}")
            chosen = is_first | is_second
            return inputs[chosen], is_second[chosen].to(torch.int64)

        name = f"{self.name}:{first},{second}"
        return Data(name, two(self.test), None if self.train is None else two(self.train))

"""The one type that every loader returns."""

from __future__ import annotations

from dataclasses import dataclass

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

"""Which samples share a batch: a function of sample index and batch size alone.

Convolutions and matrix products change their last bits with the shape of the batch. So every batch, the last one
included, has the same size, and a run that is killed, resumed or split over workers computes the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def micro_batches(samples: int, batch_size: int) -> list[range]:
    """Split 0 … samples − 1 into consecutive ranges of ``batch_size``; the last may be shorter and needs `padded`."""
    return [range(start, min(start + batch_size, samples)) for start in range(0, samples, batch_size)]


def padded(ids: Sequence[int], batch_size: int) -> Tensor:
    """``ids`` followed by as many of them again, in order, as make up ``batch_size``; int64 of shape (batch_size,).

    Padding repeats real samples, because an all-zero image may take another path through a model (or divide by
    zero), and its results are dropped.
    """
    return torch.tensor([ids[i % len(ids)] for i in range(batch_size)], dtype=torch.int64)

"""Random flips and translations of training images, keyed so that a sample's never depend on its batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrobust import ops

# Attacks draw their random starts from the training's seed itself; these numbers are to be others.
_STREAM = 0x5DEECE66D


@dataclass(frozen=True)
class FlipAndShift:
    """Mirror each image left to right with probability 1/2, and move it by up to ``shift`` pixels along both axes.

    The vertical and the horizontal move are uniform in {−shift, …, shift}; what comes in over an edge is ``fill``. That is
    a random crop of the image padded by ``shift`` on all sides. Flip and moves are functions of (seed, sample id, step).

    Args:
        flip: mirror; not for digits and letters.
        shift: in pixels, >= 0.
        fill: in the units of the inputs, inside their bounds.

    Raises:
        ValueError: ``shift`` is negative.

    Cost: one pass over memory for each of padding, cropping and flipping; none with ``FlipAndShift(False, 0)``, which
    returns the inputs themselves.
    Source: seed 003, §3.5.2 ("image flipping and random translation"); 4 pixels as in He et al. 2016.
    """

    flip: bool = True
    shift: int = 4
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift: expected an integer >= 0, got {self.shift}")

    def __call__(self, inputs: Tensor, sample_ids: Tensor, step: int, seed: int) -> Tensor:
        """Augment a batch.

        Args:
            inputs: (N, C, H, W); not changed.
            sample_ids: int64 (N,), indices in the training set, on the device of ``inputs``.
            step: of the training, in [0, 2³²).
            seed: of the training, in [0, 2⁶³).

        Returns:
            Like ``inputs``: every value is one of the image's own, or ``fill``.

        Raises:
            ValueError: ``inputs`` is not (N, C, H, W), or another argument out of range.
        """
        if inputs.ndim != 4:
            raise ValueError(f"inputs: expected images (N, C, H, W), got shape {tuple(inputs.shape)}")
        if not (self.flip or self.shift):
            return inputs
        # Three numbers a sample, uniform in [−1, 1]; float32 whatever the inputs are, so that all dtypes move alike.
        like = inputs.new_empty((len(inputs), 3), dtype=torch.float32)
        drawn = ops.sample_lp_ball(like, torch.inf, seed=(seed + _STREAM) % 2**63, sample_ids=sample_ids, step=step)
        if self.shift:
            inputs = self._moved(inputs, drawn[:, 1:])
        if self.flip:
            inputs = torch.where(drawn[:, :1, None, None] < 0, inputs.flip(3), inputs)
        return inputs

    def _moved(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        height, width = inputs.shape[2:]
        places = 2 * self.shift + 1
        top, left = ((drawn + 1) / 2 * places).long().clamp(max=places - 1).unbind(1)
        padded = F.pad(inputs, [self.shift] * 4, value=self.fill)
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view of every crop: (N, C, places, places, H, W)
        return crops[torch.arange(len(inputs), device=inputs.device), :, top, left]

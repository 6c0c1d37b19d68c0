"""What a model takes images for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyrobust._checks import check_inputs, check_labels, check_logits
from pyrobust.analysis.work import Work, joined
from pyrobust.attacks._common import Model, check_count, undisturbed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Recognised:
    """Images and what a model takes them for, on the CPU.

    Attributes:
        images: (N, …).
        classes: int64 (N,): the class that each was made for.
        predictions: int64 (N,).
        confidence: float64 (N,): the softmax probability of ``classes``.
    """

    images: Tensor
    classes: Tensor
    predictions: Tensor
    confidence: Tensor

    def plot(self) -> Figure:
        """The images, five a row, with their classes and confidences; predictions where they are others.

        Raises:
            ValueError: these are not images (N, C, H, W) with 1 or 3 channels.
        """
        from pyrobust.analysis._draw_pictures import draw_recognised

        return draw_recognised(self)


def recognised(
    model: Model, images: Tensor, classes: Tensor, *, batch_size: int = 128, work: Work | None = None
) -> Recognised:
    """argmax and softmax probability of each image's class: for fooling images, class images, adversarial points.

    Args:
        model: from (N, …) to logits (N, K), K ≥ 2; run in evaluation mode.
        images: (N, …).
        classes: int64 (N,).
        batch_size: images a pass.
        work: progress and resume.

    Raises:
        TypeError, ValueError: naming the argument (``classes`` as "labels").

    Cost: one forward pass.
    """
    check_inputs(images, (-torch.inf, torch.inf))
    check_labels(classes, images)
    check_count(batch_size=batch_size)

    def compute(ids: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            logits = model(images[ids]).double()
        check_labels(classes, images, check_logits(logits, len(ids)))
        confidence = torch.softmax(logits, 1).gather(1, classes[ids].unsqueeze(1)).squeeze(1)
        return {"predictions": logits.argmax(1), "confidence": confidence}

    with undisturbed(model):
        parts = torch.arange(len(images), device=images.device).split(batch_size)
        found = joined((work or Work()).map("recognised", parts, compute))
    return Recognised(images.detach().cpu(), classes.cpu(), found["predictions"], found["confidence"])

"""The logistic regressions of seed 000, §3 and §4.2, and how much they are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.reproduce._common import Run, trained
from pyrobust.analysis.logistic_models import LOGISTIC_VARIANTS, LogisticVariant, logistic_setup
from pyrobust.data import Data

NATURAL, EXPERT, EXPERT_L2, BINARISED = "natural", "expert", "expert, l2 0.05", "binarised"
L2, L1, L1_15, L1_32 = "l2 3.25", "l1 3.25", "l1 15", "l1 32"
FGSM, PREDICTED, FGSM_EXPERT, FGSM_FAR = "FGSM", "FGSM, predicted labels", "FGSM, expert, l2 0.05", "FGSM, eps 0.5"
FAST = "fast gradient"
FGSM_EARLY, FAST_EARLY = "FGSM, a fifth of the steps", "fast gradient, a fifth of the steps"
EARLY = 0.2

VARIANTS = {
    **{
        name: LOGISTIC_VARIANTS[name]
        for name in (
            NATURAL, EXPERT, EXPERT_L2, BINARISED, L2, L1, L1_15, L1_32, FGSM, PREDICTED, FGSM_EXPERT, FGSM_FAR, FAST,
        )
    },
    FGSM_EARLY: replace(LOGISTIC_VARIANTS[FGSM], share=EARLY),
    FAST_EARLY: replace(LOGISTIC_VARIANTS[FAST], share=EARLY),
}  # fmt: skip
AGAIN = (NATURAL, EXPERT_L2, L2, L1, FGSM)  # also trained on the images that the published code draws from
CLASSES = 7, 3  # labelled 0 and 1
HELD_OUT = 5000  # of the training images, first in their file, that the published code leaves out


@dataclass(frozen=True)
class Size:
    """Steps of Adam, and its rate; a weight moves by their product at most, or so."""

    steps: int
    lr: float


SIZES = {"full": Size(50_000, 1e-5), "quick": Size(10_000, 5e-5), "smoke": Size(200, 3e-3)}


def pair(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The sevens and threes, as classes 0 and 1."""
    inputs, labels = part
    kept = (labels == CLASSES[0]) | (labels == CLASSES[1])
    return inputs[kept], (labels[kept] == CLASSES[1]).long()


def published_part(data: Data, batch: int = 128) -> tuple[Tensor, Tensor]:
    """The images that the published code trains on: its batches begin at step · 128 mod b with b = ⌊n / 128⌋ − 1, a number of
    batches where one of images is meant, so that no more than the first b + 127 of n are ever drawn."""
    assert data.train is not None
    held_out = HELD_OUT if len(data.train[1]) > 2 * HELD_OUT else 0
    inputs, labels = pair((data.train[0][held_out:], data.train[1][held_out:]))
    batches = max(len(labels) // batch - 1, 1)
    drawn = batches - math.gcd(batch, batches) + batch
    return inputs[:drawn], labels[:drawn]


def network(run: Run, name: str, train: tuple[Tensor, Tensor], label: str = "") -> nn.Module:
    """The trained model of a name."""
    size = SIZES[run.size]
    variant: LogisticVariant = VARIANTS[name]
    model, objective, recipe = logistic_setup(variant, train, steps=size.steps, lr=size.lr)
    if variant.share == 0:
        return model.eval().requires_grad_(False)
    return trained(run, f"{name}{label}", model, objective, train, recipe)


def direction(model: nn.Module) -> Tensor:
    """The weights as one vector of length 1, in float64."""
    weight = model.direction
    assert isinstance(weight, Tensor)
    return torch.nn.functional.normalize(weight.detach().double().flatten(), dim=0)

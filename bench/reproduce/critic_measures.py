"""What seed 003, chapter 4, measures of a network: how far its adversarial examples are, under three attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.reproduce._common import BATCH, distances, wrong
from bench.reproduce._runs import Measures, relative
from pyrobust.attacks import high_confidence
from pyrobust.evaluation.checks import predict, verify

ATTACKS = {
    "deepfool": "DeepFool",
    "carlini": "C&W",
    "confident": "high confidence",
}  # by measure, what tables call them
ROUNDING = 1e-4  # by which a confidence that is predicted again may differ from the one at which an attack stopped


@dataclass(frozen=True)
class Effort:
    """Steps of DeepFool and the high-confidence attack, of at most 0.1, and the options of Carlini and Wagner's."""

    steps: int
    carlini: Mapping[str, Any]


def measure(model: nn.Module, test: tuple[Tensor, Tensor], attacked: int, effort: Effort) -> Measures:
    """The error on all test images, and ρ on the first ``attacked``, right or wrong (eq. 4.9): r = 0 where they are wrong.

    Images for which an attack finds nothing are left out of its mean, and counted. "nearest" is the smallest r of DeepFool,
    C&W and DDN with 100 steps, image by image.
    """
    x, y = (part[:attacked] for part in test)
    lengths = torch.linalg.vector_norm(x.double().flatten(1), dim=1).cpu().numpy()
    everyone = np.ones(len(y), dtype=bool)
    found = {
        "deepfool": distances(model, x, y, "deepfool", norm="l2", steps=effort.steps, max_step=0.1),
        "carlini": distances(model, x, y, "carlini_wagner", norm="l2", **effort.carlini),
        "confident": confident(model, x, y, effort.steps),
    }
    ddn = distances(model, x, y, "ddn", norm="l2", steps=100)
    nearest = np.minimum.reduce([found["deepfool"], found["carlini"], ddn])
    return {
        "error": 100 * float(wrong(model, *test).mean()),
        **{name: relative(r, lengths, everyone) for name, r in found.items()},
        "nearest": relative(nearest, lengths, everyone),
        **{f"{name} found": 100 * float(np.isfinite(r).mean()) for name, r in found.items()},
    }


def by_ddn(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """ρ under DDN with 50 steps: quick enough to be watched while a network is trained."""
    x, y = test
    lengths = torch.linalg.vector_norm(x.double().flatten(1), dim=1).cpu().numpy()
    return relative(distances(model, x, y, "ddn", norm="l2", steps=50), lengths, np.ones(len(y), dtype=bool))


def confident(model: nn.Module, inputs: Tensor, labels: Tensor, steps: int) -> np.ndarray:
    """(N,) l2 norms of the high-confidence attack's perturbations, whose target is the closest class and whose confidence that
    of the image itself: inf where the point, predicted again, is not as confident."""
    parts = []
    for x, y in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        adv = high_confidence(model, x, y, steps=steps, max_step=0.1)
        (before, _), (after, predictions) = predict(model, x), predict(model, adv)
        verdict = verify(x, adv, y, predictions, norm="l2", bounds=(0.0, 1.0))
        as_confident = (confidence(after) >= confidence(before) - ROUNDING).cpu()
        norms = verdict.norms["l2"].masked_fill(~(verdict.adversarial & as_confident), np.inf)
        parts.append(norms.numpy())
    return np.where(wrong(model, inputs, labels), 0.0, np.concatenate(parts))


def confidence(logits: Tensor) -> Tensor:
    """(N,) probability of the likeliest class."""
    return logits.softmax(1).amax(1)

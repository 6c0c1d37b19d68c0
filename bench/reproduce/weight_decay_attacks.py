"""What figures 10–12 and table 2 of seed 000 measure of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.reproduce._common import broken, distances, wrong
from bench.reproduce._samples import Mask
from pyrobust.attacks import jsma, pixel_swap
from pyrobust.attacks._search import SearchState
from pyrobust.data import Data
from pyrobust.evaluation.checks import predict, verify

REACH = 40  # how far 20 steps of 2/255 can carry a value, in grey levels
EPS = (1, 2, 3, 5, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128)  # in grey levels of 255
FAR = tuple(eps for eps in EPS if eps > REACH)
SHARES = (0.02, 0.05, 0.11, 0.18, 0.26, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)
GAMMAS = (0.01, 0.02, 0.03, 0.04, 0.05)


@dataclass(frozen=True)
class Saliency:
    """One row of table 2.

    Attributes:
        sources: N, images, each attacked towards every class but its own.
        gamma: γ, the largest share of values changed.
        success: ASR.
        changed: mean share of the values changed over all attacks; one that failed has changed all it might.
        changed_in_successes: the same, but a failure counts as 0 and is counted: "S Pert. Rte." (corrected).
        changed_by_successes: the mean over the successes alone.
    """

    sources: int
    gamma: float
    success: float
    changed: float
    changed_in_successes: float
    changed_by_successes: float


@dataclass(frozen=True)
class Measured:
    """Masks over the test images, right and still so; those of the gradient attacks over the first of them alone.

    Attributes:
        fitted: the share of the training images that are right.
        clean: unattacked.
        pgd, fgsm: an entry an eps of `EPS`; ``reaching``: PGD with longer steps, an entry an eps of `FAR`.
        swapped: an entry a share of `SHARES`, each one (runs, N).
        saliency: rows of table 2.
    """

    fitted: float
    clean: Mask
    pgd: list[Mask]
    fgsm: list[Mask]
    reaching: list[Mask]
    swapped: list[Mask]
    saliency: list[Saliency]

    def to_json(self) -> dict[str, Any]:
        means = {
            name: [float(mask.mean()) for mask in getattr(self, name)]
            for name in ("pgd", "fgsm", "reaching", "swapped")
        }
        rows = [vars(row) for row in self.saliency]
        attacked = float(self.clean[: len(self.pgd[0])].mean())
        return {
            "fitted": self.fitted,
            "clean": float(self.clean.mean()),
            "clean_attacked": attacked,
            **means,
            "saliency": rows,
        }


def measure(
    model: nn.Module, data: Data, attacked: int, swaps: int, sources: tuple[tuple[int, float], ...]
) -> Measured:
    assert data.train is not None
    first = data.test[0][:attacked], data.test[1][:attacked]
    pgd, fgsm = [], []
    for level in EPS:
        eps = level / 255
        # The paper's (20–2–ε): 20 steps of 2/255 from a random start.
        pgd.append(~broken(model, *first, "pgd", norm="linf", eps=eps, steps=20, step_size=2 / 255))
        fgsm.append(~broken(model, *first, "fgm", norm="linf", eps=eps))
    # Steps of ε/8, in place of 2/255, with which the attack cannot cross the larger balls.
    reaching = [~broken(model, *first, "pgd", norm="linf", eps=level / 255, steps=20) for level in FAR]
    swapped = []
    for share in SHARES:
        runs = [distances(model, *data.test, "pixel_swap", norm="l0", share=share, seed=seed) for seed in range(swaps)]
        swapped.append(np.isinf(np.stack(runs)))
    saliency = [row for count, gamma in sources for row in saliencies(model, data.test, count, gamma)]
    clean = ~wrong(model, *data.test)
    return Measured(1 - float(wrong(model, *data.train).mean()), clean, pgd, fgsm, reaching, swapped, saliency)


def saliencies(model: nn.Module, data: tuple[Tensor, Tensor], count: int, largest: float) -> list[Saliency]:
    """JSMA towards every other class with at most ``largest`` of the values, and what of it is within each smaller γ.

    The search is greedy, so a smaller γ only ends it sooner. A value is a channel of a pixel, and is set to 1.
    """
    inputs, labels = data[0][:count], data[1][:count]
    others = torch.stack([(labels + shift) % 10 for shift in range(1, 10)])
    values = inputs[0].numel()
    found = []
    for targets in others:
        adv = jsma(model, inputs, targets, theta=1.0, gamma=largest, targeted=True)
        reached = predict(model, adv)[1]
        verdict = verify(inputs, adv, targets, reached, norm="l0", bounds=(0.0, 1.0), targeted=True)
        changed = (adv != inputs).flatten(1).sum(1).cpu().numpy()
        found.append(np.where(verdict.adversarial.numpy(), changed, np.inf))
    changes = np.concatenate(found)
    rows = []
    for gamma in [gamma for gamma in GAMMAS if gamma <= largest] or [largest]:
        allowed = 2 * (int(gamma * values) // 2)  # pairs
        success = changes <= allowed
        spent = np.where(success, changes, allowed) / values
        parts = np.where(success, spent, 0.0)
        by_successes = float(spent[success].mean()) if success.any() else float("nan")
        rows.append(
            Saliency(count, gamma, float(success.mean()), float(spent.mean()), float(parts.mean()), by_successes)
        )
    return rows


def swapped_images(model: nn.Module, inputs: Tensor, labels: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Image i with a share i of its pixels swapped, whatever the network says of it."""
    points: list[Tensor] = []

    def keep(step: int, state: SearchState) -> None:
        points.append(state.adv)

    for i, share in enumerate(shares):
        ids = torch.tensor([i], device=inputs.device)
        pixel_swap(model, inputs[i : i + 1], labels[i : i + 1], share=share, sample_ids=ids, callback=keep)
    return torch.cat(points)

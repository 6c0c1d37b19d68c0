"""The collections A_mnist and A_cifar10 of seed 002: adversarial examples of the baseline by one step of steepest ascent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.reproduce._common import BATCH
from bench.reproduce._figures import pictures
from bench.reproduce._samples import Mask
from pyrobust.attacks import fgm
from pyrobust.evaluation.checks import predict, verify

LARGEST = {"l1": 1.0, "l2": 16.0, "linf": 1.0}
HALVINGS = 8
SHOWN = 10


@dataclass(frozen=True)
class Collection:
    """Adversarial examples, the test images they are made from, and their labels.

    Attributes:
        norms: of each example, an index into the keys of ``radii``.
        radii: of the step, by norm.
        wanted: the size of the paper's collection, relative to the test set.
    """

    adversarial: Tensor
    inputs: Tensor
    labels: Tensor
    norms: Tensor
    radii: dict[str, float]
    wanted: int

    def of(self, norm: str) -> Mask:
        """Which examples are of that norm, (N,)."""
        return (self.norms == list(self.radii).index(norm)).numpy()

    def describe(self) -> str:
        parts = ", ".join(f"{int(self.of(norm).sum())} by {norm} {radius:.3g}" for norm, radius in self.radii.items())
        return (
            f"The collection has {len(self.labels)} adversarial examples (the paper's share: {self.wanted}): {parts}."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "radii": self.radii,
            "sizes": {norm: int(self.of(norm).sum()) for norm in self.radii},
            "wanted": self.wanted,
        }


def collect(model: nn.Module, data: tuple[Tensor, Tensor], norms: Iterable[str], wanted: int) -> Collection:
    """About ``wanted`` examples: an equal share from each norm, at the smallest radius that gives it (by bisection)."""
    radii, parts = {}, []
    inputs, labels = data
    left = wanted
    names = list(norms)  # l1 comes first: what it cannot give, the others do
    for number, norm in enumerate(names):
        share = round(left / (len(names) - number))
        radii[norm], chosen, adversarial = _smallest(model, data, norm, share)
        left -= len(chosen)
        parts.append((adversarial, inputs[chosen], labels[chosen], torch.full((len(chosen),), number)))
    adv, clean, right, numbers = (torch.cat(part) for part in zip(*parts, strict=True))
    return Collection(adv, clean, right, numbers, radii, wanted)


def _smallest(model: nn.Module, data: tuple[Tensor, Tensor], norm: str, share: int) -> tuple[float, Tensor, Tensor]:
    """The smallest radius, up to a part in 2^HALVINGS of the largest, that breaks ``share`` images, those, and the points.

    Where the largest is too small: it, and what it breaks.
    """
    low, high = 0.0, LARGEST[norm]
    best = high, *_broken(model, data, norm, high)
    for _ in range(HALVINGS if len(best[1]) > share else 0):
        middle = (low + high) / 2
        chosen, adversarial = _broken(model, data, norm, middle)
        if len(chosen) >= share:
            high, best = middle, (middle, chosen, adversarial)
        else:
            low = middle
    return best


def _broken(model: nn.Module, data: tuple[Tensor, Tensor], norm: str, radius: float) -> tuple[Tensor, Tensor]:
    """The numbers of the images that were right and no longer are after the step, and the points."""
    numbers, points = [], []
    for ids in torch.arange(len(data[1]), device=data[1].device).split(BATCH):
        x, y = data[0][ids], data[1][ids]
        adv = fgm(model, x, y, eps=radius, norm=norm)  # type: ignore[arg-type]
        verdict = verify(x, adv, y, predict(model, adv)[1], norm=norm, bounds=(0.0, 1.0), eps=radius)
        found = verdict.adversarial.to(y.device) & (predict(model, x)[1] == y)
        numbers.append(ids[found])
        points.append(adv[found])
    return torch.cat(numbers), torch.cat(points)


def draw_collection(path: Path, model: nn.Module, collection: Collection) -> None:
    """Examples at even distances: the images above, the examples below, with the classes that the model sees."""
    if not len(collection.labels):
        return
    chosen = torch.linspace(0, len(collection.labels) - 1, SHOWN).round().long().unique()
    rows = {"test image": collection.inputs[chosen], "adversarial": collection.adversarial[chosen]}
    names = list(collection.radii)
    titles = [names[number] for number in collection.norms[chosen].tolist()]
    under = [[str(c) for c in predict(model, row)[1].tolist()] for row in rows.values()]
    pictures(path, rows, titles, under=under)


def single_pixels(path: Path, model: nn.Module, data: tuple[Tensor, Tensor]) -> int:
    """Draw images that are misclassified once a single pixel has changed; how many of those that were right are."""
    inputs = data[0]
    chosen, adversarial = _broken(model, data, "l1", LARGEST["l1"])
    changed = (adversarial != inputs[chosen]).flatten(1).sum(1)
    single = (changed == 1).nonzero().flatten()
    shown = single[:SHOWN]
    if len(shown):
        images, points = inputs[chosen[shown]], adversarial[shown]
        width = images.shape[-1]
        places = [(int(p) // width, int(p) % width) for p in (images != points).any(1).flatten(1).int().argmax(1)]
        rows = {"test image": images, "one pixel changed": points}
        under = [[str(c) for c in predict(model, row)[1].tolist()] for row in rows.values()]
        pictures(path, rows, circles=places, under=under)
    return len(single)

"""The networks of seed 000, §6, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from bench.reproduce._common import Run, trained
from pyrobust.data import Data, FlipAndShift
from pyrobust.models import galloway_cnn, small_cnn, wrn_34_10
from pyrobust.training import AdversarialTraining, L2Decay, LabelSmoothing, Objective, Recipe

EPS, STEP, STEPS = 8 / 255, 2 / 255, 7  # "PGD (7–2–8)"
DECAY, SMOOTHING = 1e-3, 0.1
WARMUP = 50 / 250  # the share of the epochs before the first adversarial point

CNN_L2, CNN, CNN_NAT_L2, CNN_NAT, WRN, WRN_NAT = "CNN-L2", "CNN", "CNN-Nat-L2", "CNN-Nat", "WRN", "WRN-Nat"
CNNS, WIDE = (CNN_L2, CNN, CNN_NAT_L2, CNN_NAT), (WRN, WRN_NAT)

NOTES = (
    f"{CNN_L2} and {CNN} are the paper's: the network of its table 1, PGD (7–2–8) after the first {WARMUP:.0%} of the "
    f"epochs, with and without l2 decay (λ = {DECAY:g} of ½‖w‖²), Adam at a rate of 0.001. Half of the loss is that of the "
    f"images, with labels smoothed by {SMOOTHING:g}, and half that of the adversarial points, as in the trainer of CleverHans "
    f"that its published code calls: the paper does not tell. {CNN_NAT_L2} and {CNN_NAT} are not in the paper: without PGD, "
    f"with and without decay. {WRN} and {WRN_NAT} (Madry et al.'s networks) are trained at the full size alone, here with our "
    "WRN-34-10 by their recipe instead of from their weights."
)


@dataclass(frozen=True)
class Size:
    """How much is trained and attacked.

    Attributes:
        train, test: images, the first so many (None: all); ``attacked`` of the latter by gradients.
        epochs: of the CNNs; ``wide_epochs`` of the WRNs, 0: they are left out.
        swaps: how often pixels are swapped at random.
        sources: (images, largest share of values) of JSMA, as in table 2.
        batch: images a step.
    """

    train: int | None
    test: int | None
    attacked: int
    epochs: int
    wide_epochs: int
    swaps: int
    sources: tuple[tuple[int, float], ...]
    batch: int = 128


SIZES = {
    "full": Size(None, None, 10_000, 250, 205, 3, ((10, 0.05), (100, 0.01))),
    "quick": Size(10_000, None, 300, 12, 0, 3, ((10, 0.05), (100, 0.01))),
    "smoke": Size(None, 100, 50, 5, 0, 2, ((2, 0.2), (4, 0.1)), batch=32),
}


def networks(run: Run, data: Data) -> dict[str, nn.Module]:
    """Those of the size, trained."""
    size = SIZES[run.size]
    assert data.train is not None
    build: Callable[[], nn.Module] = small_cnn if run.size == "smoke" else galloway_cnn
    found = {}
    for name in CNNS:
        recipe = Recipe(epochs=size.epochs, batch_size=size.batch, optimizer="adam", lr=1e-3, schedule="constant")
        start = WARMUP * size.epochs if name in (CNN_L2, CNN) else None
        objective = _cnn(start, decayed=name in (CNN_L2, CNN_NAT_L2))
        found[name] = trained(run, f"cifar10 {name}", build(), objective, data.train, recipe)
    for name in WIDE if size.wide_epochs else ():
        objective = Objective(adversarial=_pgd(0.0)) if name == WRN else Objective(smoothed=LabelSmoothing(0.0))
        found[name] = trained(run, f"cifar10 {name}", wrn_34_10(), objective, data.train, _wide(size.wide_epochs))
    return found


def _cnn(start: float | None, *, decayed: bool) -> Objective:
    terms = {"decay": (DECAY, L2Decay())} if decayed else {}
    smoothed = LabelSmoothing(SMOOTHING)
    if start is None:
        return Objective(smoothed=smoothed, **terms)
    return Objective(smoothed=(0.5, smoothed), adversarial=(0.5, _pgd(start)), **terms)


def _pgd(start: float) -> AdversarialTraining:
    return AdversarialTraining(EPS, "linf", STEPS, STEP, start=start)


def _wide(epochs: int) -> Recipe:
    """Madry et al.'s: 80,000 steps on 50,000 images, the rate cut at a half and three quarters."""
    return Recipe(epochs=epochs, lr=0.1, weight_decay=2e-4, schedule="steps", augment=FlipAndShift())

"""The networks of seed 003, chapter 5: Madry's on MNIST, that of FAB's authors on CIFAR-10; trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from bench import zoo
from bench.reproduce._common import Run
from bench.zoo import Recipe
from pyrobust.data import Data, load
from pyrobust.models import croce_cnn, madry_cnn, small_cnn

# The kinds bear the name of the network, so that other networks of the same data have weights of their own.
# Madry's budget on MNIST is 0.3. The thesis does not give the others: they are chosen a little below its mean norms.
FULL = {
    "mnist plain": Recipe("mnist", "madry plain", 12, lr=1e-3, bar=0.985),
    "mnist linf-at": Recipe("mnist", "madry linf-at", 40, lr=1e-3, norm="linf", eps=0.3, steps=20, bar=0.97),
    "mnist l2-at": Recipe("mnist", "madry l2-at", 30, lr=1e-3, norm="l2", eps=2.0, steps=20, bar=0.97),
    "cifar10 plain": Recipe("cifar10", "croce plain", 30, lr=1e-3, decay=1e-5, bar=0.75),
    "cifar10 linf-at": Recipe("cifar10", "croce linf-at", 40, lr=1e-3, norm="linf", eps=4 / 255, steps=7, bar=0.65),
    "cifar10 l2-at": Recipe("cifar10", "croce l2-at", 40, lr=1e-3, norm="l2", eps=0.5, steps=7, bar=0.65),
}
QUICK_WIDTH = 0.25  # of the network on CIFAR-10


def _quick(name: str, epochs: int, bar: float, images: int | None = None, steps: int = 0) -> Recipe:
    full = FULL[name]
    return replace(full, kind=f"{full.kind} quick", epochs=epochs, images=images, steps=steps, bar=bar)


QUICK = {
    "mnist plain": _quick("mnist plain", 2, 0.97),
    "mnist linf-at": _quick("mnist linf-at", 8, 0.9, images=20_000, steps=7),
    "mnist l2-at": _quick("mnist l2-at", 4, 0.9, images=20_000, steps=5),
    "cifar10 plain": _quick("cifar10 plain", 15, 0.55),
    "cifar10 linf-at": _quick("cifar10 linf-at", 12, 0.45, steps=3),
    "cifar10 l2-at": _quick("cifar10 l2-at", 12, 0.45, steps=3),
}


def trained(name: str, run: Run) -> tuple[nn.Module, Data]:
    """The network of that name, from bench/.cache where it is there, and its data; with ``--smoke`` the small CNN after one
    epoch on scikit-learn's digits in its place."""
    recipe = FULL[name] if run.size == "full" else QUICK[name]
    build: dict[str, Callable[[], nn.Module]] = {
        "digits": small_cnn,
        "mnist": madry_cnn,
        "cifar10": croce_cnn if run.size == "full" else partial(croce_cnn, width=QUICK_WIDTH),
    }
    if run.size == "smoke":
        recipe = replace(recipe, data="digits", batch_size=8, lr=5e-3, eps=recipe.eps / 4, steps=2)
    data = load(recipe.data)
    return zoo.network(recipe, data, run.device, smoke=run.size == "smoke", build=build[recipe.data]), data

"""The networks of seed 003, chapter 5: Madry's on MNIST, that of FAB's authors on CIFAR-10; trained here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from bench import zoo
from bench.zoo import Recipe
from pyrobust.data import Data, load
from pyrobust.models import small_cnn

# The kinds bear the name of the network, so that other networks of the same data have weights of their own.
# Madry's budget on MNIST is 0.3. The thesis does not give the others: they are chosen a little below its mean norms.
RECIPES = {
    "mnist plain": Recipe("mnist", "madry plain", 12, lr=1e-3, bar=0.985),
    "mnist linf-at": Recipe("mnist", "madry linf-at", 40, lr=1e-3, norm="linf", eps=0.3, steps=20, bar=0.97),
    "mnist l2-at": Recipe("mnist", "madry l2-at", 30, lr=1e-3, norm="l2", eps=2.0, steps=20, bar=0.97),
    "cifar10 plain": Recipe("cifar10", "fab plain", 30, lr=1e-3, decay=1e-5, bar=0.75),
    "cifar10 linf-at": Recipe("cifar10", "fab linf-at", 40, lr=1e-3, norm="linf", eps=4 / 255, steps=7, bar=0.65),
    "cifar10 l2-at": Recipe("cifar10", "fab l2-at", 40, lr=1e-3, norm="l2", eps=0.5, steps=7, bar=0.65),
}
STRIDES = (1, 1, 2, 1, 1, 2, 1, 2)
WIDTHS = (64, 64, 128, 128, 128, 256, 256, 256)


def madry_cnn(seed: int = 0) -> nn.Module:
    """Two 5×5 convolutions (32, 64) with pooling, dense 1024: (N, 1, 28, 28) → (N, 10). Madry et al. 2018."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 7 * 7, 1024), nn.ReLU(), nn.Linear(1024, 10),
        )  # fmt: skip


def fab_cnn(seed: int = 0) -> nn.Module:
    """Eight 3×3 convolutions, three of stride 2, and two dense layers: (N, 3, 32, 32) → (N, 10). Croce and Hein 2020.

    The strides are those of the published network; the widths are chosen here, for they are known from its weights alone.
    """
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for before, width, stride in zip((3, *WIDTHS), WIDTHS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride=stride, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(WIDTHS[-1] * 4 * 4, 512), nn.ReLU(), nn.Linear(512, 10)]
        for layer in layers:  # without normalisation, torch's default weights let the signal fade over ten layers
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)


def trained(name: str, device: torch.device, epochs: int, images: int, smoke: bool) -> tuple[nn.Module, Data]:
    """The network of that name, from bench/.cache where it is there, and its data.

    Args:
        epochs, images: of the training, where not 0. What comes out of another training has to meet no bar.
        smoke: the small CNN after one epoch on scikit-learn's digits in its place.
    """
    recipe = RECIPES[name]
    if smoke:
        recipe = replace(recipe, data="digits", batch_size=8, lr=5e-3, eps=recipe.eps / 4, steps=2)
    elif epochs or images:
        recipe = replace(recipe, epochs=epochs or recipe.epochs, images=images or recipe.images, bar=0.0)
    data = load(recipe.data)
    build = {"digits": small_cnn, "mnist": madry_cnn, "cifar10": fab_cnn}[recipe.data]
    return zoo.network(recipe, data, device, smoke=smoke, build=build), data

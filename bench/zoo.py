"""The networks whose minimum norms are compared: plain, adversarially trained and weight-decayed, trained once."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.networks import CACHE, cifar_cnn
from pyrobust import ops
from pyrobust.data import Data
from pyrobust.data.loading import DATA_VARIABLE
from pyrobust.models import load_weights, save_weights, small_cnn

EXPONENTS = {"linf": math.inf, "l2": 2.0}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: cross-entropy, Adam, a rate that falls to zero along a half cosine.

    Attributes:
        kind: "plain", "linf-at", "l2-at" or "decayed".
        epochs, batch_size, lr, images: of the training; the first so many images (None: all).
        decay: the penalty decay / 2 · ‖weights‖².
        norm, eps, steps: of the attack whose points are trained on; eps = 0: the images themselves. eps grows linearly
            to its value over the first third of the epochs.
        bar: the clean accuracy on the test images below which the training has failed, and its weights are not kept.
    """

    data: str
    kind: str
    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    images: int | None = None
    decay: float = 0.0
    norm: str = "linf"
    eps: float = 0.0
    steps: int = 0
    bar: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.data} {self.kind}"


# Budgets that networks of this size can bear: with 8/255 on CIFAR-10, say, too few images would stay correct to be attacked.
RECIPES = (
    Recipe("mnist", "plain", 4, bar=0.97),
    Recipe("mnist", "linf-at", 8, norm="linf", eps=0.25, steps=7, bar=0.9),
    Recipe("mnist", "l2-at", 6, norm="l2", eps=1.5, steps=5, bar=0.9),
    Recipe("mnist", "decayed", 4, decay=2e-3, bar=0.93),
    Recipe("cifar10", "plain", 6, bar=0.5),
    Recipe("cifar10", "linf-at", 10, norm="linf", eps=4 / 255, steps=3, bar=0.35),
    Recipe("cifar10", "l2-at", 10, norm="l2", eps=0.5, steps=3, bar=0.35),
    Recipe("cifar10", "decayed", 6, decay=2e-3, bar=0.4),
)
DIGITS = (
    Recipe("digits", "plain", 30, batch_size=32, bar=0.9),
    Recipe("digits", "linf-at", 40, batch_size=32, norm="linf", eps=0.15, steps=5, bar=0.85),
    Recipe("digits", "l2-at", 40, batch_size=32, norm="l2", eps=0.7, steps=5, bar=0.85),
    Recipe("digits", "decayed", 30, batch_size=32, decay=2e-3, bar=0.85),
)


def mnist_cnn(seed: int = 0) -> nn.Module:
    """Wong and Kolter's: two 4×4 convolutions of stride 2 (16, 32), dense 100; without pooling, so cheap to train."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mnist": mnist_cnn, "cifar10": cifar_cnn, "digits": small_cnn}


def network(
    recipe: Recipe,
    data: Data,
    device: torch.device,
    *,
    smoke: bool = False,
    build: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """The trained network of a recipe, from bench/.cache where it is there; with ``smoke`` after one epoch of 512
    images, and not kept.

    Args:
        build: another network than that of the data. Its weights are told apart by the recipe's kind alone.

    Raises:
        RuntimeError: the training ended below the recipe's bar.
    """
    model = (build or NETWORKS[recipe.data])().to(device)
    if smoke:
        return train(replace(recipe, epochs=1, images=512), model, data)
    made_from = {name: value for name, value in asdict(recipe).items() if name != "bar"}
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:10]
    path = CACHE / f"{recipe.name.replace(' ', '-')}-{digest}.safetensors"
    if path.is_file():
        return load_weights(model, path).eval().requires_grad_(False)
    train(recipe, model, data)
    clean = accuracy(model, *data.test)
    if clean < recipe.bar:
        raise RuntimeError(f"{recipe.name}: clean accuracy {clean:.3f} after training, expected at least {recipe.bar}")
    CACHE.mkdir(exist_ok=True)
    save_weights(model, path)
    return model


def train(recipe: Recipe, model: nn.Module, data: Data) -> nn.Module:
    """Train in place; the order of the images and all noise follow from the recipe alone."""
    assert data.train is not None
    device = next(model.parameters()).device
    inputs, labels = (part[: recipe.images].to(device) for part in data.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
    batches = -(-len(inputs) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * batches)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for epoch in range(recipe.epochs):
        for number, chosen in enumerate(torch.randperm(len(inputs), generator=generator).split(recipe.batch_size)):
            chosen = chosen.to(device)
            x, y = inputs[chosen], labels[chosen]
            if recipe.eps > 0:
                warm = min(1.0, 3 * (epoch + number / batches + 0.05) / recipe.epochs)
                x = _perturbed(model, x, y, replace(recipe, eps=warm * recipe.eps), chosen, epoch)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        print(f"  {recipe.name}: epoch {epoch + 1} of {recipe.epochs}", flush=True)
    optimizer.zero_grad(set_to_none=True)
    return model.eval().requires_grad_(False)


def _perturbed(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, ids: Tensor, epoch: int) -> Tensor:
    """The last point of PGD on the cross-entropy, from a random start, keyed by image and epoch."""
    p, x = EXPONENTS[recipe.norm], x.contiguous()
    adv = x + ops.sample_lp_ball(x, p, recipe.eps, seed=0, sample_ids=ids, step=epoch)
    adv.clamp_(0, 1)
    for _ in range(recipe.steps):
        point = adv.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(point), y, reduction="sum"), point)
        ops.pgd_step_(adv, grad, x, p, recipe.eps, 2 * recipe.eps / recipe.steps, (0.0, 1.0))
    return adv.detach()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of the images that the network gets right, in [0, 1]."""
    device = next(model.parameters()).device
    batches = zip(inputs.split(512), labels.split(512), strict=True)
    return sum(int((model(x.to(device)).argmax(1).cpu() == y).sum()) for x, y in batches) / len(inputs)


def recipes(smoke: bool) -> tuple[tuple[Recipe, ...], str]:
    """Those of MNIST and CIFAR-10 where their files are, else of scikit-learn's digits, and why."""
    folder = os.environ.get(DATA_VARIABLE)
    if smoke:
        return DIGITS[:1], "(--smoke)"
    if folder and all((Path(folder) / f"{name}.npz").is_file() for name in ("mnist", "cifar10")):
        return RECIPES, ""
    return DIGITS, f"(no mnist.npz and cifar10.npz under {DATA_VARIABLE})"


@torch.no_grad()
def images(model: nn.Module, data: Data, half: str, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first ``count`` test images of even ("tune") or odd ("report") number that the network gets right."""
    inputs, labels = (part[("tune", "report").index(half) :: 2][: 4 * count + 100].to(device) for part in data.test)
    right = torch.cat([model(x).argmax(1) for x in inputs.split(512)]) == labels
    chosen = right.nonzero().flatten()[:count]
    return inputs[chosen].contiguous(), labels[chosen]

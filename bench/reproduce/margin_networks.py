"""The networks of seed 003, chapter 3: MLP and LeNet-5 on MNIST, NIN on CIFAR-10, with every defence of tables 3.1 and 3.2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.reproduce._common import Run, trained
from pyrobust.data import FlipAndShift, digits, load
from pyrobust.models import ZCA, GlobalContrast, lenet5, mlp, nin, small_cnn
from pyrobust.training import (
    AdversarialTraining,
    CrossEntropy,
    Hinge,
    MarginSensitivity,
    Objective,
    Recipe,
    VirtualAdversarial,
)

Part = tuple[Tensor, Tensor]
NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {"MLP": mlp, "LeNet-5": lenet5}


@dataclass(frozen=True)
class Defence:
    """One row of table 3.1; the loss is the cross-entropy unless the objective says otherwise."""

    objective: Callable[[], Objective]
    dropout: bool = False


def margin(weight: float, norm: str) -> Objective:
    """Eq. 3.18 (corrected): the hinge loss and C times the margin sensitivity. ``norm`` is that of the perturbation."""
    return Objective(hinge=Hinge(), sensitivity=(weight, MarginSensitivity(norm)))  # type: ignore[arg-type]


def plain() -> Objective:
    return Objective(ce=CrossEntropy())


def fgsm_training(eps: float) -> Objective:
    """CE(x) + CE(x + eps · sign ∇CE): Goodfellow et al. 2015, with equal weights."""
    return Objective(at=AdversarialTraining(eps, steps=1, step_size=eps, random_start=False, weight=1.0))


def vat(eps: float) -> Objective:
    return Objective(ce=CrossEntropy(), vat=VirtualAdversarial(eps))


# The thesis gives eps of VAT in chapter 4 alone. Its "l1" is the norm of the gradient, which is linf for the perturbation.
DEFENCES = {
    "baseline": Defence(plain),
    "Dropout": Defence(plain, dropout=True),
    "AT": Defence(partial(fgsm_training, 0.2)),
    "VAT": Defence(partial(vat, 2.0)),
    "our l1": Defence(partial(margin, 0.01, "linf")),
    "our l2": Defence(partial(margin, 0.1, "l2")),
}
# Rows of table 3.2: C of the margin sensitivity beside the cross-entropy (0: none, but weight decay), and augmentation.
NIN_ROWS = {
    "NIN w/o data augm.": (0.0, False),
    "NIN l2, C = 0.01": (0.01, False),
    "NIN l2, C = 0.001": (0.001, False),
    "NIN with data augm.": (0.0, True),
    "NIN l2, C = 0.005": (0.005, True),
}


def mnist(run: Run, images: int, test: int) -> tuple[Part, Part]:
    """The first ``images`` of the training images and ``test`` of the test images; for --smoke digits of the same shape."""
    source = digits() if run.size == "smoke" else load("mnist")
    return _first(source.train, images, run, (28, 28)), _first(source.test, test, run, (28, 28))


def cifar(run: Run, test: int) -> tuple[Part, Part]:
    """CIFAR-10's training images but the last tenth, which the thesis validated on, and test images; for --smoke digits."""
    source = digits() if run.size == "smoke" else load("cifar10")
    assert source.train is not None
    return _first(source.train, len(source.train[0]) * 9 // 10, run), _first(source.test, test, run)


def _first(part: Part | None, count: int, run: Run, size: tuple[int, int] | None = None) -> Part:
    """The first ``count`` images, on the device; digits enlarged to ``size``."""
    assert part is not None
    inputs, labels = (tensor[:count].to(run.device) for tensor in part)
    if run.size == "smoke" and size is not None:
        inputs = F.interpolate(inputs, size, mode="bilinear").clamp(0, 1)
    return inputs, labels


def whitened(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Global contrast normalisation and ZCA, fitted to the training images, and the range of all values: §3.5.2."""
    contrast = GlobalContrast()
    transform = nn.Sequential(contrast, ZCA.fit(contrast(train)))
    train, test = transform(train), transform(test)
    both = torch.cat([train.flatten(), test.flatten()])
    return train, test, (float(both.min()), float(both.max()))


def decaying(optimizer: Optimizer, steps: int, epochs: int) -> LambdaLR:
    """The rate times 0.95 after every epoch."""
    return LambdaLR(optimizer, lambda step: 0.95 ** (step * epochs // steps))


def fifths(optimizer: Optimizer, steps: int) -> LambdaLR:
    """The rate divided by 5 at 40, 60 and 80 % of the training: epochs 80, 120 and 160 of 200."""
    return LambdaLR(optimizer, lambda step: 0.2 ** sum(step >= at * steps for at in (0.4, 0.6, 0.8)))


def adam(epochs: int, seed: int) -> Recipe:
    """§3.5.1: Adam with its default rate, batches of 100, the rate times 0.95 after every epoch."""
    schedule = partial(decaying, epochs=epochs)
    return Recipe(epochs=epochs, batch_size=100, optimizer="adam", lr=1e-3, schedule=schedule, seed=seed)


def on_mnist(run: Run, network: str, name: str, defence: Defence, data: Part, epochs: int, seed: int) -> nn.Module:
    """A network of table 3.1."""
    model = NETWORKS[network](seed)
    if defence.dropout:
        model = with_dropout(model)
    return trained(run, f"{network} {name} run {seed}", model, defence.objective(), data, adam(epochs, seed))


def on_cifar(
    run: Run, name: str, weight: float, augmented: bool, data: Part, bounds: tuple[float, float], epochs: int, seed: int
) -> nn.Module:
    """NIN trained as §3.5.2 says, with a rate and a weight decay of our choice: it gives neither. For --smoke a small CNN."""
    objective = Objective(ce=CrossEntropy(), sensitivity=(weight, MarginSensitivity("l2"))) if weight else plain()
    recipe = Recipe(
        epochs=epochs,
        batch_size=128,
        lr=0.01,
        weight_decay=0.0 if weight else 1e-4,
        schedule=fifths,
        augment=FlipAndShift() if augmented else None,
        bounds=bounds,
        seed=seed,
    )
    network = small_cnn if run.size == "smoke" else nin
    return trained(run, f"{name} run {seed}", network(seed), objective, data, recipe)


def with_dropout(model: nn.Sequential, share: float = 0.5) -> nn.Sequential:
    """Dropout after every hidden dense layer, as in Srivastava et al. 2014."""
    layers: list[nn.Module] = []
    for before, layer in zip([None, *model], model, strict=False):
        layers.append(layer)
        if isinstance(layer, nn.ReLU) and isinstance(before, nn.Linear):
            layers.append(nn.Dropout(share))
    return nn.Sequential(*layers)

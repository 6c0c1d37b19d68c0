"""The networks of seed 003, chapter 3: MLP and LeNet-5 on MNIST, with every defence of table 3.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bench.reproduce._common import Run, trained
from pyrobust.data import digits, load
from pyrobust.models import lenet5, mlp, with_dropout
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


def mnist(run: Run, images: int, test: int) -> tuple[Part, Part]:
    """The first ``images`` of the training images and ``test`` of the test images; for --smoke digits of the same shape."""
    source = digits() if run.size == "smoke" else load("mnist")
    return first(source.train, images, run, (28, 28)), first(source.test, test, run, (28, 28))


def first(part: Part | None, count: int, run: Run, size: tuple[int, int] | None = None) -> Part:
    """The first ``count`` images, on the device; digits enlarged to ``size``."""
    assert part is not None
    inputs, labels = (tensor[:count].to(run.device) for tensor in part)
    if run.size == "smoke" and size is not None:
        inputs = F.interpolate(inputs, size, mode="bilinear").clamp(0, 1)
    return inputs, labels


def decaying(optimizer: Optimizer, steps: int, epochs: int) -> LambdaLR:
    """The rate times 0.95 after every epoch."""
    return LambdaLR(optimizer, lambda step: 0.95 ** (step * epochs // steps))


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

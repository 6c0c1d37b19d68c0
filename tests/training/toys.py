"""Small networks, batches and trainings for the tests of the objectives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from pyrobust.attacks import deepfool, pgd
from pyrobust.data import digits
from pyrobust.models import accuracy, small_cnn
from pyrobust.training import Batch, CrossEntropy, Objective, Recipe, Term, train

SIZE, CLASSES = 12, 4


def network(seed: int = 0, dtype: torch.dtype = torch.float64, extras: bool = False) -> nn.Sequential:
    """(N, 3, 4) → (N, 4), smooth, so that finite differences mean something; with batch norm and dropout on demand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(9), nn.Dropout(0.5)] if extras else []
        return nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 9), *middle, nn.Softplus(), nn.Linear(9, CLASSES)).to(dtype)


def linear(seed: int = 0, classes: int = CLASSES) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(SIZE, classes)).double()


def batch_of(count: int = 6, dtype: torch.dtype = torch.float64, classes: int = CLASSES, **options) -> Batch:
    """Inputs in [0.3, 0.7], so that a small perturbation meets no bound; sample ids that are not 0 … N − 1."""
    generator = torch.Generator().manual_seed(7)
    inputs = (0.3 + 0.4 * torch.rand(count, 3, 4, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(classes, (count,), generator=generator)
    return Batch(inputs, labels, torch.arange(count) + 5, **{"step": 3, "seed": 2, **options})


def permuted(batch: Batch, order: Tensor) -> Batch:
    """The same samples in another order, or some of them."""
    return Batch(
        batch.inputs.detach()[order], batch.labels[order], batch.sample_ids[order], batch.step, batch.epoch, batch.bounds,
        batch.seed,
    )  # fmt: skip


def value(term: Term, model: nn.Module, batch: Batch) -> Tensor:
    """The term's value, the way a training gets it."""
    objective = Objective(term=term)
    batch.inputs.requires_grad_(objective.needs_input_grad)
    objective.prepare(model, batch)
    return objective(model, batch)[0]


def gradients(term: Term, model: nn.Module, batch: Batch) -> list[Tensor]:
    return list(torch.autograd.grad(value(term, model, batch), list(model.parameters())))


def numerical_gradients(function, model: nn.Module, step: float = 1e-6) -> list[Tensor]:
    """Central differences of ``function()`` in every parameter."""
    found = []
    for parameter in model.parameters():
        flat, grad = parameter.data.view(-1), torch.zeros(parameter.numel(), dtype=parameter.dtype)
        for i, kept in enumerate(flat.tolist()):
            flat[i] = kept + step
            above = float(function())
            flat[i] = kept - step
            grad[i] = (above - float(function())) / (2 * step)
            flat[i] = kept
        found.append(grad.view_as(parameter))
    return found


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Check that training flags, buffers, gradients and torch's random state are what they were."""
    flags = [module.training for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    state = torch.get_rng_state()
    yield
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Passes:
    """Counts the forward passes of a model, and the backward passes that reach its input or its parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = 0
        model.register_forward_hook(self._watch)

    def _watch(self, model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        self.forward += 1
        if logits.requires_grad:
            logits.register_hook(self._count)

    def _count(self, grad: Tensor) -> None:
        self.backward += 1


def on_digits(objective: Objective, epochs: int = 12, model: nn.Module | None = None) -> nn.Module:
    """A network trained on the digits: a second or two."""
    model = small_cnn() if model is None else model
    train(model, objective, digits(), Recipe(epochs=epochs, batch_size=64, optimizer="adam", lr=2e-3))
    return model


@cache
def plain_on_digits(epochs: int = 12) -> nn.Module:
    return on_digits(Objective(ce=CrossEntropy()), epochs)


def clean_and_robust(model: nn.Module, norm: str = "linf", eps: float = 0.1) -> tuple[float, float]:
    """Accuracy on all test digits, and on the first 300 under PGD."""
    inputs, labels = digits().test
    some = inputs[:300], labels[:300]
    return accuracy(model, inputs, labels), accuracy(model, pgd(model, *some, eps=eps, norm=norm, steps=20), some[1])


def deepfool_distance(model: nn.Module) -> float:
    """The mean l2 distance to DeepFool's points, over those of the first 300 test digits that are right."""
    inputs, labels = (part[:300] for part in digits().test)
    right = model(inputs).argmax(1) == labels
    adv = deepfool(model, inputs[right], labels[right], norm="l2")
    return (adv - inputs[right]).flatten(1).norm(dim=1).mean().item()

"""The same training methods elsewhere: in plain PyTorch, as one would write them down, and in ART."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def adversarial(eps: float, size: float, steps: int) -> Loss:
    """Madry's training: linf projected gradient ascent in evaluation mode, then the cross-entropy there."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.eval()
        adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(steps):
            adv.requires_grad_()
            (grad,) = torch.autograd.grad(F.cross_entropy(model(adv), y), adv)
            adv = adv.detach() + size * grad.sign()
            adv = torch.min(torch.max(adv, x - eps), x + eps).clamp(0, 1)
        model.train()
        return F.cross_entropy(model(adv), y)

    return loss


def trades(eps: float, size: float, steps: int, beta: float) -> Loss:
    """As the authors' published code for linf, whose clean logits inside the ascent are computed anew each step."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.eval()
        adv = x + 0.001 * torch.randn_like(x)
        for _ in range(steps):
            adv.requires_grad_()
            value = F.kl_div(F.log_softmax(model(adv), 1), F.softmax(model(x), 1), reduction="sum")
            (grad,) = torch.autograd.grad(value, adv)
            adv = adv.detach() + size * grad.sign()
            adv = torch.min(torch.max(adv, x - eps), x + eps).clamp(0, 1)
        model.train()
        clean = model(x)
        robust = F.kl_div(F.log_softmax(model(adv), 1), F.softmax(clean, 1), reduction="batchmean")
        return F.cross_entropy(clean, y) + beta * robust

    return loss


def vat(eps: float, steps: int, xi: float) -> Loss:
    """Virtual adversarial training, l2."""

    def unit(d: Tensor) -> Tensor:
        return d / (d.flatten(1).norm(dim=1).reshape(-1, *[1] * (d.ndim - 1)) + 1e-8)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.eval()
        with torch.no_grad():
            p = F.softmax(model(x), 1)
        d = unit(torch.randn_like(x))
        for _ in range(steps):
            d.requires_grad_()
            value = F.kl_div(F.log_softmax(model(x + xi * d), 1), p, reduction="batchmean")
            (grad,) = torch.autograd.grad(value, d)
            d = unit(grad)
        model.train()
        clean = model(x)
        fixed = F.softmax(clean.detach(), 1)
        return F.cross_entropy(clean, y) + F.kl_div(F.log_softmax(model(x + eps * d), 1), fixed, reduction="batchmean")

    return loss


def spectral(eps: float, steps: int, weight: float) -> Loss:
    """Data-dependent spectral norm by sums of squares, its power iteration by torch.func's jvp and vjp."""

    def unit(v: Tensor) -> Tensor:
        return v / (v.flatten(1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1)) + 1e-12)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        model.eval()
        v = unit(torch.randn_like(x))
        for _ in range(steps):
            with torch.no_grad():
                u = unit(torch.func.jvp(model, (x,), (v,))[1])
                v = unit(torch.func.vjp(model, x)[1](u)[0])
        model.train()
        clean = model(x)
        change = (model(x + eps * v) - clean) / eps
        return F.cross_entropy(clean, y) + weight * 0.5 * change.square().sum(1).mean()

    return loss


def plain_spectral_norms(model: nn.Module) -> Callable[[], Tensor]:
    """½ Σ σ² by a power-iteration step a layer, one after another."""
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    us = [torch.randn(len(w), device=w.device) for w in weights]

    def penalty() -> Tensor:
        total = torch.zeros((), device=weights[0].device)
        for i, weight in enumerate(weights):
            matrix = weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(matrix.T @ us[i], dim=0)
                us[i] = F.normalize(matrix @ v, dim=0)
            total = total + 0.5 * (us[i] @ matrix @ v).square()
        return total

    return penalty


def art_trainers(
    model: Callable[[], nn.Module], x: Tensor, y: Tensor, eps: float, size: float, steps: int
) -> dict[str, Callable[[], Callable[[], None]]]:
    """Makers of calls that train on one batch, by class name; a call raises where ART is missing or fails."""

    def classifier() -> object:
        from art.estimators.classification import PyTorchClassifier

        network = model()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        kind = "gpu" if x.is_cuda else "cpu"
        return PyTorchClassifier(
            network,
            nn.CrossEntropyLoss(),
            tuple(x.shape[1:]),
            10,
            optimizer=optimizer,
            clip_values=(0, 1),
            device_type=kind,
        )

    inputs = x.cpu().numpy()
    labels = np.eye(10, dtype=np.float32)[y.cpu().numpy()]

    def madry() -> Callable[[], None]:
        from art.defences.trainer import AdversarialTrainerMadryPGD

        trainer = AdversarialTrainerMadryPGD(classifier(), 1, len(x), eps=eps, eps_step=size, max_iter=steps)
        return lambda: _quietly(lambda: trainer.fit(inputs, labels, batch_size=len(x), nb_epochs=1))

    def general() -> Callable[[], None]:
        from art.attacks.evasion import ProjectedGradientDescent
        from art.defences.trainer import AdversarialTrainer

        own = classifier()
        attack = ProjectedGradientDescent(
            own, eps=eps, eps_step=size, max_iter=steps, num_random_init=1, batch_size=len(x), verbose=False
        )
        trainer = AdversarialTrainer(own, attack, ratio=1.0)
        return lambda: _quietly(lambda: trainer.fit(inputs, labels, batch_size=len(x), nb_epochs=1))

    return {"art:AdversarialTrainerMadryPGD": madry, "art:AdversarialTrainer": general}


def _quietly(call: Callable[[], None]) -> None:
    """Without ART's warnings and progress bars."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        call()

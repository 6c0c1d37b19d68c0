"""The networks under attack, and their images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyrobust.data import Data, digits, load_npz
from pyrobust.models import accuracy, fit, load_weights, save_weights, small_cnn

CACHE = Path(__file__).resolve().parent / ".cache"
EPOCHS = {"cifar4": 6, "digits": 30}


@dataclass
class Subject:
    """A network in evaluation mode, and images in [0, 1] that were not trained on."""

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    note: str

    def to_json(self) -> dict[str, Any]:
        return {
            "network": self.name,
            "samples": len(self.inputs),
            "shape": list(self.inputs.shape[1:]),
            "note": self.note,
        }


def cifar_cnn(seed: int = 0) -> nn.Module:
    """Four 3×3 convolutions (32, 64, 64, 128; pooling after all but the third) and a linear layer, to 10 logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128 * 4 * 4, 10),
        ).eval()  # fmt: skip


def cifar(device: torch.device, batch: int, smoke: bool) -> Subject:
    """The CIFAR-size network: trained where $PYROBUST_DATA has cifar10.npz; else, or for --smoke, untrained."""
    folder = os.environ.get("PYROBUST_DATA")
    source = Path(folder) / "cifar10.npz" if folder else None
    model = cifar_cnn()
    if smoke or source is None or not source.is_file():
        noise = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        why = "--smoke" if smoke else "no cifar10.npz under PYROBUST_DATA"
        with torch.no_grad():
            labels = model(noise).argmax(1)
        return _subject(
            "cifar4 untrained",
            model,
            noise,
            labels,
            f"{why}: initial weights, uniform noise, labels as predicted",
            device,
        )
    data = load_npz(source)
    assert data.train is not None
    return _trained("cifar4", model, data, batch, device, batch_size=128, epochs=EPOCHS["cifar4"])


def scikit_digits(device: torch.device, batch: int, smoke: bool) -> Subject:
    """The small CNN on scikit-learn's digits."""
    return _trained(
        "digits", small_cnn(), digits(), batch, device, batch_size=32, epochs=3 if smoke else EPOCHS["digits"]
    )


def _trained(
    name: str, model: nn.Module, data: Data, batch: int, device: torch.device, *, batch_size: int, epochs: int
) -> Subject:
    """The network trained (weights kept in bench/.cache) and the first ``batch`` test images that it gets right."""
    assert data.train is not None
    path = CACHE / f"{name}-{epochs}.safetensors"
    try:
        load_weights(model, path)
    except (FileNotFoundError, ValueError):
        print(f"training {name} …", flush=True)
        fit(model, *data.train, epochs=epochs, batch_size=batch_size, seed=0)
        if epochs == EPOCHS[name]:
            CACHE.mkdir(exist_ok=True)
            save_weights(model, path)
    model.eval()
    inputs, labels = data.test
    note = f"clean accuracy {accuracy(model, inputs, labels):.3f}, {epochs} epochs on {len(data.train[0])} images"
    with torch.no_grad():
        right = model(inputs[: 4 * batch]).argmax(1) == labels[: 4 * batch]
    chosen = right.nonzero().flatten()[:batch]
    return _subject(name, model, inputs[chosen], labels[chosen], note, device)


def _subject(name: str, model: nn.Module, inputs: Tensor, labels: Tensor, note: str, device: torch.device) -> Subject:
    return Subject(
        name, model.to(device).eval().requires_grad_(False), inputs.contiguous().to(device), labels.to(device), note
    )

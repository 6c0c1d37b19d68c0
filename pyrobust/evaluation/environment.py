"""What the run ran on, and how the surroundings are kept as they were found."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

import pyrobust
from pyrobust.evaluation.subject import Model


def describe(device: torch.device) -> dict[str, str | int]:
    """Versions, device and thread count, as plain JSON data."""
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
    else:
        hardware = f"{device.type} ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "pyrobust": pyrobust.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": hardware,
        "threads": torch.get_num_threads(),
    }


@contextlib.contextmanager
def preserved(model: Model) -> Iterator[None]:
    """Put back the model's buffers and training flags at the end, and run cuDNN deterministically meanwhile."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [m.training for m in modules]
    buffers = [(b, b.detach().clone()) for m in modules for b in m.buffers(recurse=False)]
    cudnn = torch.backends.cudnn
    settings = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = settings
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextlib.contextmanager
def seeded(device: torch.device, *key: object) -> Iterator[None]:
    """Global random numbers that follow from ``key``, put back afterwards.

    Our attacks key their own randomness. This makes others, and models that draw noise, repeatable batch by batch.
    """
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number)
        yield

"""Networks as the command line names them."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from pyrobust.models import MODELS


def build_model(reference: str, seed: int = 0) -> nn.Module:
    """The network that ``reference`` names, with initial weights that follow from ``seed``.

    Args:
        reference: a name in `MODELS`, or ``package.module:factory``; the factory is called without arguments, and may be
            a network itself.

    Raises:
        ValueError: there is no such network.
    """
    if reference in MODELS:
        return MODELS[reference](seed=seed)
    module_name, _, attribute = reference.rpartition(":")
    if not module_name:
        raise ValueError(f"--model: expected {', '.join(MODELS)}, or package.module:factory, got {reference!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"--model: cannot import {module_name}: {error}") from error
    factory = getattr(module, attribute, None)
    if factory is None:
        raise ValueError(f"--model: {module_name} has no {attribute!r}")
    torch.manual_seed(seed)
    network = factory if isinstance(factory, nn.Module) else factory()
    if not isinstance(network, nn.Module):
        raise ValueError(f"--model: {reference} gave {type(network).__name__}, not a torch.nn.Module")
    return network

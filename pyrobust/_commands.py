"""What the commands share: where modules are looked for, the network, its threads, and what an interruption is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import typer
from rich.console import Console
from torch import nn

from pyrobust.models import digits_cnn, load_weights
from pyrobust.models.reference import build_model


def import_from_here() -> None:
    """Find modules in the current folder, as `python -m` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def trained(seed: int, console: Console) -> nn.Module:
    """The default network. A resumed run trains it again: the same seed gives the same bits, which is checked."""
    told = "training a small network on digits"
    with console.status(told) as status:
        return digits_cnn(seed, progress=lambda done, of: status.update(f"{told}, epoch {done}/{of}"))


def built(reference: str, weights: Path | None, seed: int) -> nn.Module:
    """The network, with its weights, in evaluation mode."""
    network = build_model(reference, seed)
    if weights is not None:
        load_weights(network, weights)
    return network.eval()


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Where wanted, for so small a network that its batches are too little work to share: more threads gain nothing on an idle
    machine and wait for each other on a busy one."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def interruptible(folder: Path, kept: str) -> Iterator[None]:
    """Exit with 130 on an interruption, and tell how to go on where ``folder`` has the file ``kept`` by then."""
    try:
        yield
    except KeyboardInterrupt:
        hint = f"; the same command with --out {folder} --resume goes on" if (folder / kept).exists() else ""
        print(f"error: interrupted{hint}", file=sys.stderr)
        raise typer.Exit(130) from None

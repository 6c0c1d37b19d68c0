"""Small trainings, and the processes that start, kill and share them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from processes import die_at_call, start
from torch import Tensor, nn

from pyrobust.training import Batch, CrossEntropy, History, Objective, Recipe, Term, Validation, train
from pyrobust.training.adversarial import AdversarialTraining


def samples(count: int = 70, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Noise of shape (1, 4, 4) in the unit box, labelled 0 … 2 by the brightest of three pixels."""
    inputs = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return inputs, inputs.flatten(1)[:, [0, 5, 10]].argmax(1)


def seeded_network(*layers: nn.Module, seed: int = 0) -> nn.Sequential:
    """The layers in a row, their weights drawn anew by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return nn.Sequential(*layers)


def network(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """A convolution, batch norm, dropout and a linear layer: everything that has a state or draws."""
    return seeded_network(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 3), seed=seed
    ).to(dtype)  # fmt: skip


def affine(dtype: torch.dtype = torch.float64, seed: int = 0, sizes: tuple[int, int] = (16, 3)) -> nn.Sequential:
    """A linear classifier without statistics or randomness."""
    return seeded_network(nn.Flatten(), nn.Linear(*sizes), seed=seed).to(dtype)


class Remembering(Term):
    """A penalty with a state: it learns a parameter in `prepare`, by its own rule, and counts the visits of samples."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("visits", torch.zeros(count, dtype=torch.int64))

    @torch.no_grad()
    def prepare(self, model: nn.Module, batch: Batch) -> None:
        self.scale.mul_(0.9).add_(0.1 * batch.inputs.mean())
        self.visits[batch.sample_ids] += 1

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.scale.detach() * batch.logits(model).square().mean()


def whole_training(folder: Path | None, minutes: float = 0.0, on_log=None, resume: bool = True) -> History:
    """Everything at once that has a state: two terms, momentum, schedule, averaged weights, dropout, batch norm, best
    weights, validation, in 4 epochs of 7 steps."""
    torch.set_num_threads(1)
    torch.manual_seed(os.getpid())  # the global state differs between processes, and must not matter
    model = network()
    objective = Objective(adversarial=AdversarialTraining(eps=0.1, steps=2), memory=(0.1, Remembering(70)))
    recipe = Recipe(
        epochs=4, batch_size=8, lr=0.05, weight_decay=1e-3, clip=1.0, ema=0.8, validation=Validation(0.2, eps=0.05, steps=2),
        keep_best=True, log_every=3, seed=5,
    )  # fmt: skip
    history = train(
        model, objective, samples(), recipe, out=folder, resume=resume, checkpoint_minutes=minutes, on_log=on_log
    )
    if folder is not None:
        torch.save({"model": model.state_dict(), "objective": objective.state_dict()}, folder / "result.pt")
    return history


def slow_training(folder: Path) -> None:
    """`whole_training` that takes no less than half a second, so that it can be killed in between."""
    whole_training(folder, on_log=lambda *_: time.sleep(0.05))


def train_until_step(folder: Path, step: int) -> None:
    """Die by SIGKILL when that step is logged."""

    def kill(done: int, total: int, row: dict[str, float]) -> None:
        if done >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    whole_training(folder, on_log=kill)


def train_until_call(folder: Path, name: str, calls: int, before: bool) -> None:
    """Die at the given call of ``os.<name>`` by the writer of checkpoints, right before or right after it."""
    die_at_call(name, calls, before)
    whole_training(folder)


def exit_code(target, *arguments) -> int | None:
    """Run in a process of its own, to the end."""
    process = start(target, *arguments)
    process.join(120)
    return process.exitcode


def as_rank(rank: int, size: int, store: Path, target, *arguments) -> None:
    """Run ``target`` as one of several processes of a gloo group."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    try:
        target(*arguments)
    finally:
        dist.destroy_process_group()


def together(size: int, folder: Path, target, *arguments) -> list[int | None]:
    """Run ``target`` in a group of processes; their exit codes."""
    store = folder / f"store-{len(list(folder.glob('store-*')))}"
    processes = [start(as_rank, rank, size, store, target, *arguments) for rank in range(size)]
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def plain() -> Objective:
    return Objective(ce=CrossEntropy())

"""Two processes train what one does, up to rounding, and agree on everything they have to."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyrobust.training import Batch, DivergedError, Objective, Recipe, Term, Validation, process_group, train
from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.input_gradient import InputGradient

from .runs import Remembering, affine, network, plain, samples, seeded_network, start, together

pytestmark = [
    pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo"),
    pytest.mark.usefixtures("one_thread"),
]


def convolutional() -> nn.Module:
    """Without batch statistics and dropout, in float64."""
    return seeded_network(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    ).double()  # fmt: skip


class Learning(Term):
    """A penalty whose scale goes to the mean of the batch at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, model: nn.Module, batch: Batch) -> None:
        self.scale.copy_(batch.inputs.mean())

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.scale.detach() * batch.logits(model).square().mean()


def train_and_keep(folder: Path) -> None:
    """Adversarial training with its own attack, a penalty that is differentiated twice, and one that learns."""
    model = convolutional()
    objective = Objective(
        adversarial=AdversarialTraining(eps=0.1, steps=2), gradient=(0.1, InputGradient()), learning=(0.1, Learning())
    )
    recipe = Recipe(
        epochs=3, batch_size=12, lr=0.1, clip=1.0, ema=0.8, validation=Validation(0.2, eps=0.05, steps=2, batch_size=5),
        log_every=2,
    )  # fmt: skip
    history = train(model, objective, samples(70, torch.float64), recipe, out=folder)
    rank = dist.get_rank() if dist.is_initialized() else 0
    torch.save({"model": model.state_dict(), "epochs": history.epochs}, folder / f"result{rank}.pt")


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train_and_keep(one)
    assert together(2, tmp_path, train_and_keep, two) == [0, 0]
    expected = torch.load(one / "result0.pt", weights_only=True)
    shared = [torch.load(two / f"result{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, tensor in expected["model"].items():
        assert torch.equal(shared[0]["model"][name], shared[1]["model"][name])
        # float64 sums in another order, over 12 steps: 1e-16 each, and the map of the training may stretch them.
        torch.testing.assert_close(shared[0]["model"][name], tensor, rtol=0, atol=1e-12)
    for ours, theirs in zip(shared[0]["epochs"], expected["epochs"], strict=True):
        assert (ours["clean"], ours["robust"]) == (theirs["clean"], theirs["robust"])
        for key in ("loss", "loss/adversarial", "loss/gradient", "loss/learning"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-6)  # recorded in float32
    assert (two / "log.csv").read_text().count("\n") == (one / "log.csv").read_text().count("\n")


class MaskSeen(Term):
    """Writes down which inputs the model's first layer, a dropout, lets through."""

    classifies = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        mask = model[0](torch.ones_like(batch.inputs))
        torch.save({"mask": mask, "ids": batch.sample_ids}, self.folder / f"seen-{batch.step}-{dist.get_rank()}.pt")
        return batch.logits(model).square().mean()


def train_with_masks(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    model = seeded_network(nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3))
    train(model, Objective(seen=MaskSeen(folder)), samples(), Recipe(epochs=1, batch_size=10))


def leave_late(folder: Path, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with process_group(torch.device("cpu")):
        if rank == 0:
            time.sleep(1)
            (folder / "written").touch()
    assert (folder / "written").exists()


def test_processes_leave_together(tmp_path: Path) -> None:
    """The others wait for the one that writes the files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(leave_late, tmp_path, rank, port) for rank in (0, 1)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]


def test_processes_take_slices_of_one_batch_and_draw_their_own_dropout(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert together(2, tmp_path, train_with_masks, folder) == [0, 0]
    everything = []
    for step in range(7):
        first, second = (torch.load(folder / f"seen-{step}-{rank}.pt", weights_only=True) for rank in (0, 1))
        assert not torch.equal(first["mask"], second["mask"])
        everything += [*first["ids"].tolist(), *second["ids"].tolist()]
    assert sorted(everything) == list(range(70))


def train_with_states(folder: Path, stop: bool) -> None:
    """Batch norm and a term with buffers; one process alone is asked to stop."""
    memory = Remembering(70)

    def ask(done: int, total: int, row: dict[str, float]) -> None:
        if stop and done == 6 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    model = network()
    recipe = Recipe(epochs=2, batch_size=14, lr=0.05, log_every=2, validation=Validation(0.2, eps=0.05, steps=2))
    objective = Objective(**{**dict(plain().terms), "memory": (0.1, memory)})
    try:
        train(model, objective, samples(), recipe, out=folder, resume=True, checkpoint_minutes=60, on_log=ask)
    except KeyboardInterrupt:
        assert stop
    else:
        assert not stop
        state = {"model": model.state_dict(), "memory": memory.state_dict()}
        torch.save(state, folder / f"result{dist.get_rank()}.pt")


def test_states_of_every_process_resume_exactly(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert together(2, tmp_path, train_with_states, whole, False) == [0, 0]
    assert together(2, tmp_path, train_with_states, parts, True) == [0, 0]  # both stop though one was asked
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["step"] == 6
    assert together(2, tmp_path, train_with_states, parts, False) == [0, 0]
    visits = []
    for rank in (0, 1):
        expected, found = (torch.load(folder / f"result{rank}.pt", weights_only=True) for folder in (whole, parts))
        for part in ("model", "memory"):
            for name, tensor in expected[part].items():
                assert torch.equal(found[part][name], tensor), (rank, part, name)
        visits.append(expected["memory"]["visits"])
    assert int(sum(visits).sum()) == 8 * 14
    assert not torch.equal(*visits)


class Exploding(Term):
    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        bad = torch.inf if batch.step == 3 and dist.get_rank() == 1 else 0.0
        return batch.logits(model).mean() + bad


def train_and_diverge(folder: Path) -> None:
    with pytest.raises(DivergedError, match="at step 3"):
        train(affine(), Objective(bad=Exploding()), samples(70, torch.float64), Recipe(epochs=2, batch_size=10))
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 2 processes, got 5"):
        train(affine(), plain(), samples(70, torch.float64), Recipe(epochs=1, batch_size=5))


def test_all_processes_stop_where_one_diverges(tmp_path: Path) -> None:
    assert together(2, tmp_path, train_and_diverge, tmp_path) == [0, 0]

"""A training that is stopped at any moment, by any means, goes on to the bits of the uninterrupted one."""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from pyrobust.attacks import mim
from pyrobust.data import FlipAndShift
from pyrobust.training import Objective, Recipe, Validation, train
from pyrobust.training.adversarial import AdversarialTraining
from pyrobust.training.interrupts import Interrupts

from .runs import (
    Remembering,
    exit_code,
    network,
    plain,
    samples,
    slow_training,
    start,
    train_until_call,
    train_until_step,
    whole_training,
)  # fmt: skip

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"), pytest.mark.usefixtures("one_thread")]

TIMES = ("seconds", "images_per_second")  # what may differ between runs


def result(folder: Path) -> dict:
    """The final weights, the objective's state, and the log without its times."""
    history = torch.load(folder / "checkpoint.pt", weights_only=True)["history"]
    rows = {
        kind: [{k: v for k, v in row.items() if k not in TIMES} for row in history[kind]]
        for kind in ("steps", "epochs")
    }
    whole = {"best": history["best_epoch"], "images": history["images"]}
    return {**torch.load(folder / "result.pt", weights_only=True), **rows, **whole}


def assert_same(folder: Path, reference: dict) -> None:
    found = result(folder)
    for part in ("model", "objective"):
        assert found[part].keys() == reference[part].keys()
        for name, tensor in found[part].items():
            assert torch.equal(tensor, reference[part][name]), (part, name)
    assert found["steps"] == reference["steps"]
    assert found["epochs"] == reference["epochs"]
    assert (found["best"], found["images"]) == (reference["best"], reference["images"])
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert len(lines) == len(reference["steps"]) + len(reference["epochs"])
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + len(reference["epochs"])
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The training as it should come out: 4 epochs of 7 steps, without any checkpoint but the last."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert exit_code(whole_training, folder, 60.0) == 0
    found = result(folder)
    assert [row["step"] for row in found["epochs"]] == [7, 14, 21, 28]
    assert int(found["objective"]["terms.memory.visits"].sum()) == 28 * 8
    return found


@pytest.mark.parametrize("step", [3, 7, 13, 28])
def test_killed_and_resumed(uninterrupted: dict, tmp_path: Path, step: int) -> None:
    """In the middle of an epoch, at its end, at its second interval, and after the last step."""
    folder = tmp_path / "run"
    assert exit_code(train_until_step, folder, step) == -signal.SIGKILL
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == step - 1  # that step was not yet kept
    assert exit_code(whole_training, folder) == 0
    assert_same(folder, uninterrupted)


def test_killed_at_random_moments(uninterrupted: dict, tmp_path: Path) -> None:
    folder, chance, kills = tmp_path / "run", random.Random(0), 0
    path, seen = folder / "checkpoint.pt", 0
    while True:
        process = start(slow_training, folder)
        while process.is_alive() and (path.stat().st_mtime_ns if path.exists() else 0) == seen:
            time.sleep(0.001)
        process.join(chance.uniform(0.0, 0.2))  # some steps after the first new checkpoint
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills, seen = kills + 1, path.stat().st_mtime_ns
    assert kills
    assert_same(folder, uninterrupted)


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("before", [True, False])
def test_killed_around_every_kind_of_write(uninterrupted: dict, tmp_path: Path, name: str, before: bool) -> None:
    folder = tmp_path / "run"
    for calls in (1, 7):  # the log is made anew first, then a checkpoint a step; fsync runs twice a file
        assert exit_code(train_until_call, folder, name, calls, before) == -signal.SIGKILL
    assert exit_code(whole_training, folder) == 0
    assert_same(folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_after_the_step_with_a_checkpoint(
    uninterrupted: dict, tmp_path: Path, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(n) for n in Interrupts.SIGNALS]

    def ask(done: int, total: int, row: dict[str, float]) -> None:
        if done == 10:
            os.kill(os.getpid(), number)
            time.sleep(0.01)  # Python runs handlers between instructions

    with pytest.raises(KeyboardInterrupt, match="stopped after step 10 of 28"):
        whole_training(tmp_path, minutes=60, on_log=ask)
    assert [signal.getsignal(n) for n in Interrupts.SIGNALS] == handlers
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 10
    whole_training(tmp_path, minutes=60)
    assert_same(tmp_path, uninterrupted)


@pytest.fixture
def pythons_handler() -> Iterator[None]:
    """Also where the tests were started by a process that ignores the signal, as a shell does for what it puts in the
    background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("pythons_handler")
def test_a_second_signal_acts_at_once() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


@pytest.mark.usefixtures("pythons_handler")
def test_without_a_folder_signals_are_pythons() -> None:
    def ask(done: int, total: int, row: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        whole_training(None, on_log=ask)


def test_checkpoints_come_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pyrobust.training.trainer.time.monotonic", lambda: clock[0])
    kept: list[int | None] = []

    def tick(done: int, total: int, row: dict[str, float]) -> None:
        path = tmp_path / "checkpoint.pt"
        kept.append(torch.load(path, weights_only=True)["step"] if path.exists() else None)
        clock[0] += 60

    recipe = Recipe(epochs=2, batch_size=10, log_every=1)
    train(network(), plain(), samples(100), recipe, out=tmp_path, checkpoint_minutes=4, on_log=tick)
    # A minute a row: 10 of steps and one of the epoch, twice. The tenth step has two.
    assert kept == [*[None] * 4, *[4] * 4, *[8] * 4, *[11] * 4, *[15] * 4, *[19] * 2]


def test_an_early_stop_stays_one(tmp_path: Path) -> None:
    recipe = Recipe(epochs=50, batch_size=10, lr=1e-9, validation=Validation(0.2), patience=2)
    model = network()
    first = train(model, plain(), samples(), recipe, out=tmp_path)
    again = network()
    second = train(again, plain(), samples(), recipe, out=tmp_path, resume=True)
    assert first.stopped == second.stopped == "early"
    assert first.epochs == second.epochs
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_schedules_and_optimisers_of_torch_resume(tmp_path: Path) -> None:
    def recipe() -> Recipe:
        return Recipe(
            epochs=3, batch_size=10, optimizer=lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
            schedule=lambda optimizer, steps: torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 16]), log_every=2,
        )  # fmt: skip

    def stop(done: int, total: int, row: dict[str, float]) -> None:
        if done == 9:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    whole, parts = network(), network()
    train(whole, plain(), samples(), recipe())
    with pytest.raises(KeyboardInterrupt):
        train(network(), plain(), samples(), recipe(), out=tmp_path, on_log=stop)
    train(parts, plain(), samples(), recipe(), out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))


def test_a_training_is_not_started_over_another_nor_resumed_as_another(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=10)
    train(network(), plain(), samples(), recipe, out=tmp_path, resume=True)  # nothing to resume: it starts
    with pytest.raises(ValueError, match=r"out: .* holds a training already"):
        train(network(), plain(), samples(), recipe, out=tmp_path)
    for changed, message in (
        ({"recipe": Recipe(epochs=2, batch_size=10, lr=0.2)}, "epochs was 1, is 2; lr was 0.1, is 0.2"),
        (
            {"recipe": Recipe(epochs=1, batch_size=10, validation=Validation())},
            "validation was None, is {'type': 'Validation'",
        ),
        ({"objective": Objective(ce=(0.5, plain().terms["ce"]))}, "objective was"),
        ({"objective": Objective(ce=plain().terms["ce"], memory=Remembering(70))}, "objective was"),
        ({"data": samples(71)}, "data was"),
        (
            {"recipe": Recipe(epochs=1, batch_size=10, augment=FlipAndShift())},
            "augment was None, is {'type': 'FlipAndShift'",
        ),
    ):
        given = {"objective": plain(), "data": samples(), "recipe": recipe, **changed}
        with pytest.raises(ValueError, match=message):
            train(network(), **given, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "other",
    [
        AdversarialTraining(eps=0.2), AdversarialTraining(eps=0.1, steps=3), AdversarialTraining(eps=0.1, norm="l2"),
        AdversarialTraining(eps=0.1, attack="mim"), AdversarialTraining(eps=0.1, attack=partial(mim, decay=0.5)),
    ],
)  # fmt: skip
def test_options_of_terms_are_settings_too(tmp_path: Path, other: AdversarialTraining) -> None:
    recipe = Recipe(epochs=1, batch_size=10)
    for _ in range(2):  # the same goes on
        train(network(), Objective(at=AdversarialTraining(eps=0.1)), samples(), recipe, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="objective was"):
        train(network(), Objective(at=other), samples(), recipe, out=tmp_path, resume=True)


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("content", ["pickle", "text", "empty", "tensors"])
def test_a_file_that_is_no_checkpoint_is_named_and_never_unpickled(tmp_path: Path, content: str) -> None:
    path, written = tmp_path / "checkpoint.pt", tmp_path / "exploded"
    if content == "pickle":
        torch.save({"format": Bomb(written)}, path)
        assert pickle.HIGHEST_PROTOCOL  # what torch.load would do without weights_only
    elif content == "tensors":
        torch.save({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(b"" if content == "empty" else b"not a checkpoint")
    with pytest.raises(ValueError, match=r"resume: .*checkpoint.pt cannot be read"):
        train(network(), plain(), samples(), Recipe(epochs=1, batch_size=10), out=tmp_path, resume=True)
    assert not written.exists()


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="is in format 99; this version reads format 1"):
        train(network(), plain(), samples(), Recipe(epochs=1, batch_size=10), out=tmp_path, resume=True)

"""`pyrobust train`, and `pyrobust evaluate` on what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import error_of, run
from torch import Tensor, nn

from pyrobust.cli import main
from pyrobust.data import FlipAndShift, digits, load
from pyrobust.models import accuracy, digits_linear, load_weights, small_cnn
from pyrobust.training import OBJECTIVES, CrossEntropy, Recipe, Validation, accuracies, make_objective, train
from pyrobust.training.catalogue import options_of
from pyrobust.training.console import _parsed
from pyrobust.training.margin import Hinge
from pyrobust.training.trades import Trades

from .runs import affine, start

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_train_and_evaluate_need_no_argument_but_the_objective(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--objective", "adversarial") == 0
    (folder,) = (place / "runs").iterdir()
    assert folder.name.startswith("small_cnn-adversarial-")
    names = {path.name for path in folder.iterdir()}
    assert {"weights.safetensors", "checkpoint.pt", "log.csv", "log.jsonl", "summary.json"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["attack"] == {"name": "pgd", "steps": 10, "norm": "linf", "eps": 0.1}
    assert summary["arguments"]["objective"] == "adversarial"
    assert summary["environment"]["torch"] == torch.__version__
    assert (summary["stopped"], summary["epochs"]) == ("finished", 30)
    assert summary["images_per_second"] * summary["seconds"] == pytest.approx(30 * 16 * 64)
    for part in ("validation", "test"):
        assert summary[part]["clean"] > 0.9
        assert summary[part]["robust"] > 0.6
    out = capsys.readouterr().out
    assert f"robust (PGD, linf 0.1) {summary['test']['robust']:.1%}" in out
    weights = folder / "weights.safetensors"
    assert (
        run(
            "evaluate",
            "--weights",
            str(weights),
            "--norm",
            "linf",
            "--samples",
            "60",
            "--steps",
            "20",
            "--out",
            "report",
        )
        == 0
    )
    report = json.loads((place / "report" / "summary.json").read_text())
    inputs, labels = digits().test
    clean = accuracies(load_weights(small_cnn(), weights), inputs[:60], labels[:60], torch.arange(60))["clean"]
    assert report["clean_accuracy"] == pytest.approx(clean)


SHORT = ["--epochs", "2", "--validation-steps", "2", "--out", "run"]


def test_evaluate_knows_what_was_trained_on_what(place: Path) -> None:
    """A linear model of two classes, which is what its exact worst case is for."""
    assert run("train", "--objective", "linear-worst-case", "--out", "run") == 0
    weights = str(place / "run" / "weights.safetensors")
    assert run("evaluate", "--weights", weights, "--norm", "linf", "--steps", "20", "--out", "report") == 0
    report = json.loads((place / "report" / "summary.json").read_text())
    inputs, labels = load("digits:7,3").test
    model = load_weights(digits_linear(), Path(weights))
    assert report["clean_accuracy"] == pytest.approx(accuracy(model, inputs, labels))
    assert report["clean_accuracy"] > 0.97
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert summary["test"]["robust"] > 0.9
    told = summary["arguments"]
    assert (told["model"], told["data"], told["lr"]) == ("digits_linear", "digits:7,3", 0.05)


def test_dropout_leaves_weights_that_the_plain_network_takes(place: Path) -> None:
    assert run("train", "--dropout", "0.5", *SHORT) == 0
    with_it = load_weights(small_cnn(), place / "run" / "weights.safetensors")
    (place / "run").rename(place / "other")
    assert run("train", *SHORT) == 0
    without = load_weights(small_cnn(), place / "run" / "weights.safetensors")
    assert not torch.equal(with_it[7].weight, without[7].weight)


def test_options_reach_recipe_and_objective(place: Path) -> None:
    """The same training by hand."""
    assert run(
        "train", "--objective", "trades", "--norm", "2", "--eps", "0.4", "--steps", "2", "--weight", "3", "--option", "step_size=0.3",
        "--model", "pyrobust.models:small_cnn", "--batch-size", "100", "--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.8",
        "--weight-decay", "0.001", "--schedule", "steps", "--clip", "2", "--ema", "0.9", "--amp", "bfloat16", "--shift", "1",
        "--validation", "0.2", "--validation-norm", "l1", "--validation-eps", "1.5", "--keep-best", "--patience", "2",
        "--seed", "3", "--log-every", "4", *SHORT,
    ) == 0  # fmt: skip
    torch.manual_seed(3)
    model = small_cnn()
    objective = make_objective(
        "trades", model, digits().train, {"norm": "l2", "eps": 0.4, "steps": 2, "step_size": 0.3}, 3.0
    )
    assert isinstance(objective.terms["trades"], Trades)
    recipe = Recipe(
        epochs=2, batch_size=100, optimizer="sgd", lr=0.05, momentum=0.8, weight_decay=0.001, schedule="steps", clip=2.0,
        ema=0.9, amp="bfloat16", augment=FlipAndShift(False, 1), keep_best=True, patience=2, seed=3, log_every=4,
        validation=Validation(0.2, eps=1.5, norm="l1", steps=2),
    )  # fmt: skip
    train(model, objective, digits(), recipe)
    written = load_weights(small_cnn(), place / "run" / "weights.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), written.state_dict().values(), strict=True)
    )
    assert json.loads((place / "run" / "summary.json").read_text())["attack"]["norm"] == "l1"


def test_a_finished_training_resumes_to_the_same_files_and_another_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", *SHORT) == 0
    before = {name: (place / "run" / name).read_bytes() for name in ("weights.safetensors", "log.csv", "log.jsonl")}
    (place / "run" / "weights.safetensors").unlink()
    capsys.readouterr()
    assert "holds a training already" in error_of(capsys, "train", *SHORT)
    assert "lr was 0.002, is 0.1" in error_of(capsys, "train", *SHORT, "--lr", "0.1", "--resume")
    assert run("train", *SHORT, "--resume") == 0
    assert {name: (place / "run" / name).read_bytes() for name in before} == before


def command(folder: Path, *arguments: str) -> None:
    os.chdir(folder)
    torch.set_num_threads(1)
    main(arguments)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupted_training_says_how_to_go_on(place: Path) -> None:
    arguments = ["train", "--epochs", "400", "--out", "run", "--log-every", "1"]
    process = start(command, place, *arguments)
    deadline = time.monotonic() + 60
    while not (place / "run" / "log.jsonl").exists() or not (place / "run" / "log.jsonl").stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    step = torch.load(place / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < 400 * 16


def as_torchrun_does(folder: Path, rank: int, port: int, *arguments: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    command(folder, *arguments)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch was built without gloo")
def test_under_torchrun_processes_share_one_training(place: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start(as_torchrun_does, place, rank, port, "train", *SHORT) for rank in (0, 1)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert summary["environment"]["processes"] == 2
    assert summary["test"]["clean"] > 0.3  # two epochs; chance is 0.1
    assert len((place / "run" / "log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "magic"], "objective: expected one of cross-entropy"),
        (["--objective", "hinge", "--eps", "0.1"], "objective hinge: expected no options, got eps"),
        (["--objective", "trades", "--option", "beta=6"], "expected options among eps, norm"),
        (["--objective", "trades", "--option", "beta"], "--option: expected name=value"),
        (["--objective", "trades", "--option", "steps=many"], "steps: expected an integer"),
        (["--objective", "hinge", "--weight", "2"], "expected neither --loss nor --weight"),
        (["--objective", "adversarial", "--loss", "hinge"], "expected neither --loss nor --weight"),
        (["--objective", "margin", "--loss", "magic"], "loss: expected one of cross-entropy, hinge"),
        (["--objective", "adversarial", "--norm", "l0"], "norm: expected"),
        (["--model", "nothing"], "expected small_cnn"),
        (["--data", "missing.npz"], "no such file"),
        (["--data", "test.npz"], "has no training part"),
        (["--batch-size", "5000"], "batch_size: expected at most"),
        (["--optimizer", "magic"], "optimizer: expected"),
        (["--amp", "float16", "--device", "cpu"], "amp: "),
        (["--resume"], "--resume needs --out"),
        (["--epochs", "many"], "--epochs"),
    ],
)  # fmt: skip
def test_errors_are_one_clear_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    np.savez(place / "test.npz", x=np.zeros((3, 1, 8, 8), np.float32), y=np.zeros(3, np.int64))
    assert message in error_of(capsys, "train", *arguments)
    assert not (place / "runs").exists() or not any((place / "runs").glob("*/checkpoint.pt"))


# The catalogue


def model_and_data(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A few digits and a network for them; for worst cases of linear models, two classes."""
    inputs, labels = digits().train
    if name == "linear-worst-case":
        return affine(torch.float32, sizes=(64, 2)), (inputs[:96], labels[:96] % 2)
    return small_cnn(), (inputs[:96], labels[:96])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_with_its_defaults_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    def stop(done: int, total: int, row: dict[str, float]) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    recipe = Recipe(epochs=2, batch_size=32, lr=0.01, log_every=1)
    whole, data = model_and_data(name)
    before = [p.detach().clone() for p in whole.parameters()]
    objective = make_objective(name, whole, data)
    history = train(whole, objective, data, recipe)
    assert all(not torch.equal(a, b) for a, b in zip(before, whole.parameters(), strict=True))
    assert all(np.isfinite(list(row.values())).all() for row in history.epochs)
    parts = model_and_data(name)[0]
    with pytest.raises(KeyboardInterrupt):
        train(parts, make_objective(name, parts, data), data, recipe, out=tmp_path, on_log=stop)
    parts = model_and_data(name)[0]
    again = make_objective(name, parts, data)
    train(parts, again, data, recipe, out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    states = objective.state_dict(), again.state_dict()
    tensors = [{key: value for key, value in state.items() if isinstance(value, Tensor)} for state in states]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_penalties_have_the_loss_and_the_weight_beside_them() -> None:
    model, data = model_and_data("trades")
    given = make_objective("trades", model, data, weight=2.5, loss="hinge")
    assert given.weights == {"loss": 1.0, "trades": 2.5}
    assert isinstance(given.terms["loss"], Hinge)
    assert make_objective("trades", model, data).weights == {"loss": 1.0, "trades": 6.0}
    assert isinstance(make_objective("trades", model, data).terms["loss"], CrossEntropy)
    mixed = make_objective("adversarial", model, data, weight=2.5)
    assert mixed.weights == {"adversarial": 1.0}
    assert mixed.terms["adversarial"].weight == 2.5


def test_an_option_may_be_infinite() -> None:
    assert _parsed(["step_size=inf", "a=1", "b=text"]) == {"step_size": float("inf"), "a": 1, "b": "text"}


def test_budgets_default_by_the_norm_and_what_the_training_gives_is_no_option() -> None:
    model, data = model_and_data("vat")
    for name, norm, eps in (("vat", "linf", 0.1), ("vat", "l2", 0.5), ("vat", "l1", 2.0)):
        assert make_objective(name, model, data, {"norm": norm}).terms["vat"].eps == eps
    assert "eps" in options_of("trades")
    assert not {"model", "inputs", "classes", "features"} & {key for name in OBJECTIVES for key in options_of(name)}
    with pytest.raises(ValueError, match="critic: expected options among"):
        make_objective("critic", model, data, {"classes": 3})

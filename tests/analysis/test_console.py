"""``pyrobust analyse …``: from options to a folder, killed and resumed, and one line for what is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from commands import error_of, run

from pyrobust.analysis.page import PAGE, SUMMARY
from pyrobust.analysis.work import PARTS
from pyrobust.models import fit, save_weights, small_cnn

COMMANDS = ("linear", "spectrum", "linearity", "activations", "filters", "fooling", "transfer")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small CNN that has seen a little of the digits."""
    from pyrobust.data import digits

    inputs, labels = digits().train
    path = tmp_path_factory.mktemp("runs") / "short" / "weights.safetensors"
    path.parent.mkdir()
    save_weights(fit(small_cnn(0), inputs[:300], labels[:300], epochs=3), path)
    return path


@pytest.fixture
def model(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["--model", "small_cnn", "--weights", str(weights), "--samples", "12", "--out", "out"]


def test_every_command_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert run("analyse", command, "--help") == 0
        shown = capsys.readouterr().out
        assert "--samples" in shown
        assert ("--weights" in shown) == (command != "linear"), "the linear one works on the data alone"


def test_a_run_leaves_numbers_pictures_and_a_page(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyse", "activations", *model, "--points", "3", "--attack-steps", "5") == 0
    assert f"page: out/{PAGE}" in capsys.readouterr().out
    page = Path("out", PAGE).read_text(encoding="utf-8")
    assert "Activations: small_cnn on digits" in page
    assert "attack steps</td><td>5" in page
    assert "reach" not in page.partition("Settings and environment")[2].partition("command")[0], "not given, not listed"
    summary = json.loads(Path("out", SUMMARY).read_text())
    assert set(summary) > {"environment", "activations-in-common"}
    assert Path("out", "activations-in-common.png").read_bytes().startswith(b"\x89PNG")


def test_weights_bring_the_network_and_data_that_they_were_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run("train", "--objective", "linear-worst-case", "--epochs", "1", "--data", "digits:4,9", "--out", "trained")
        == 0
    )
    weights = ["--weights", "trained/weights.safetensors", "--samples", "12"]
    assert run("analyse", "spectrum", *weights, "--out", "out") == 0
    assert "Spectrum: digits_linear on digits:4,9" in Path("out", PAGE).read_text(encoding="utf-8")
    capsys.readouterr()
    ten = error_of(capsys, "analyse", "spectrum", *weights, "--data", "digits", "--out", "other")
    assert "labels: expected 0 <= label < 2" in ten  # data that are named are taken


def test_a_resumed_run_computes_only_what_is_missing(
    model: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("analyse", "fooling", *model, "--trials", "4", "--batch-size", "2")
    assert run(*options) == 0
    whole = json.loads(Path("out", SUMMARY).read_text())
    kept = sorted(Path("out", PARTS).rglob("*.pt"))
    assert len(kept) == 4  # two batches of noise, for one step and for several
    kept[0].unlink()
    before = [path.stat().st_mtime_ns for path in kept[1:]]
    assert "is not empty" in error_of(capsys, *options)
    assert run(*options, "--resume") == 0
    assert [path.stat().st_mtime_ns for path in kept[1:]] == before
    assert kept[0].exists()
    assert json.loads(Path("out", SUMMARY).read_text()) == whole
    assert "options was" in error_of(capsys, *options[:-4], "--trials", "5", "--batch-size", "2", "--resume")


def test_an_interruption_tells_how_to_go_on(
    model: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyrobust.analysis import work

    def interrupted(path: Path, result: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "_write", interrupted)
    assert run("analyse", "fooling", *model, "--trials", "4") == 130
    assert "--out out --resume goes on" in capsys.readouterr().err


def test_names_stay_whole_in_a_narrow_terminal() -> None:
    from rich.console import Console

    from pyrobust.analysis._command import _print_table
    from pyrobust.analysis.page import Table

    console = Console(width=60, record=True, file=io.StringIO())
    columns = ("model", *("a heading of some length",) * 6)
    _print_table(console, "Title", Table(columns, [("expert, l2 0.05", *("100.0 %",) * 6)]))
    assert "expert, l2 0.05" in console.export_text()


def test_transfer_against_a_trained_network(
    model: list[str], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(small_cnn(1), other)
    against = ["--against", f"small_cnn={weights}", "--against", f"small_cnn={other}"]
    assert run("analyse", "transfer", *model, *against, "--steps", "3") == 0
    page = Path("out", PAGE).read_text(encoding="utf-8")
    assert "<td>short</td>" in page  # named after the folder of its run
    assert "<td>other</td>" in page  # or after the file
    own = (
        "analyse",
        "transfer",
        *model[:-1],
        "own",
        "--against",
        f"small_cnn={other.rename(tmp_path / 'small_cnn.safetensors')}",
    )
    assert run(*own, "--steps", "2") == 0, "two of one name are told apart"
    assert "<td>small_cnn 2</td>" in Path("own", PAGE).read_text(encoding="utf-8")
    save_weights(small_cnn(2), other)
    again = ("analyse", "transfer", *model, *against, "--steps", "3", "--resume")
    assert "files_sha256 was" in error_of(capsys, *again), "the other network is another one now"


def test_a_command_refused_before_it_began_leaves_the_folder_free(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "k: expected at most 10" in error_of(capsys, "analyse", "spectrum", *model, "--k", "11", "--eps", "1")
    assert not any(Path("out").iterdir())
    assert run("analyse", "fooling", *model, "--trials", "2") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["spectrum", "--eps", "0"], "eps: expected"),
        (["spectrum", "--k", "0"], "k: expected"),
        (["spectrum", "--layer", "x"], "layer: expected one of 0, 1, 2, 3, 4, 5, 6, 7, got 'x'"),
        (["linearity", "--reach", "-1"], "reach: expected"),
        (["linearity", "--points", "0"], "points: expected"),
        (["linearity", "--bins", "0"], "bins: expected"),
        (["linearity", "--layer", "x"], "layer: expected one of 0"),
        (["activations", "--attack-steps", "0"], "attack_steps: expected"),
        (["activations", "--reach", "nan"], "reach: expected"),
        (["filters", "--decay", "-1"], "decay: expected"),
        (["filters", "--shown", "0"], "shown: expected"),
        (["filters", "--units", "0"], "units: expected"),
        (["fooling", "--threshold", "2"], "threshold: expected"),
        (["fooling", "--trials", "0"], "trials: expected"),
        (["fooling", "--steps", "1"], "steps: expected an integer >= 2"),
        (["transfer", "--norm", "l0"], "norm: expected"),
        (["transfer", "--eps", "0"], "eps: expected"),
        (["linear", "--loss", "square"], "loss: expected one of hinge, softplus, got 'square'"),
        (["linear", "--lambdas", "1"], "lambdas: expected at least 2"),
        (["linear", "--eps", "0"], "eps: expected"),
        (["linear", "--steps", "0"], "steps: expected"),
        (["linear", "--regression-classes", "1,10"], "regression_classes: expected two different ones of [0, 1"),
    ],
)
def test_options_are_refused_before_anything_takes_time(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("too late")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyrobust.analysis._command.trained", called)
    monkeypatch.setattr("pyrobust.analysis.commands.linear.regularisation_sweep", called)
    assert message in error_of(capsys, "analyse", *options)


def test_training_data_are_part_of_what_the_linear_command_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    parts = {f"x_{part}": rng.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(40) % 2 for part in ("train", "test")}
    command = (
        "analyse",
        "linear",
        "--data",
        "tiny.npz",
        "--classes",
        "0,1",
        "--lambdas",
        "3",
        "--steps",
        "2",
        "--out",
        "out",
    )
    np.savez("tiny.npz", **parts, **labels)
    assert run(*command, "--regression-classes", "0,1") == 0
    np.savez("tiny.npz", **{**parts, "x_train": 255 - parts["x_train"]}, **labels)
    assert "data_sha256 was" in error_of(capsys, *command, "--regression-classes", "0,1", "--resume")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["spectrum", "--resume"], "--resume needs --out"),
        (["spectrum", "--samples", "0"], "--samples: expected at least 1, got 0"),
        (["spectrum", "--seed", "-1"], "--seed: expected at least 0, got -1"),
        (["spectrum", "--device", "nowhere"], "device: nowhere cannot be used"),
        (["spectrum", "--weights", "w"], "no such file: w"),
        (["spectrum", "--data", "elsewhere.npz"], "elsewhere.npz"),
        (["linear", "--classes", "7"], "--classes: expected two classes such as 7,9, got '7'"),
        (
            ["linear", "--classes", "1,1"],
            "classes: expected two different ones of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], got 1 and 1",
        ),
        (["transfer", "--against", "lenet5"], "--against: expected NETWORK=WEIGHTS, got 'lenet5'"),
        (["linear", "--model", "mlp"], "No such option"),
        ([], "Missing command"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message.lower() in error_of(capsys, "analyse", *options).lower()


def test_the_default_model_is_for_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8).numpy()
    np.savez("tiny.npz", x_test=images, y_test=np.arange(4))
    assert "--model is missing" in error_of(capsys, "analyse", "spectrum", "--data", "tiny.npz")

from __future__ import annotations

import builtins
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import error_of, run

import pyrobust
from pyrobust.evaluation import formatting
from pyrobust.models import fit, save_weights, small_cnn

pytestmark = pytest.mark.usefixtures("one_thread")

ATTACK = """
import torch

def nudge(model, inputs, labels, *, norm, steps=1, bounds=(0.0, 1.0)):
    "Blends each sample with its negative, by the least of ten shares that changes the prediction."
    best = inputs
    for share in range(10, 0, -1):
        point = torch.lerp(inputs, bounds[1] - inputs, share / 10)
        with torch.no_grad():
            hit = (model(point).argmax(1) != labels).view(-1, 1, 1, 1)
        best = torch.where(hit, point, best)
    return best

def fade(model, inputs, labels, *, norm, eps, bounds=(0.0, 1.0)):
    return (inputs + eps * (0.5 - inputs).sign()).clamp(*bounds)

def broken(model, inputs, labels):
    raise KeyError("oops\\nsecond line")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of attacks, weights and data."""
    from pyrobust.data import digits

    (tmp_path / "cli_attacks.py").write_text(ATTACK)
    data = digits()
    assert data.train is not None
    save_weights(fit(small_cnn(), *data.train, epochs=2), tmp_path / "w.safetensors")
    np.savez(tmp_path / "d.npz", x=data.test[0][:48].numpy(), y=data.test[1][:48].numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delitem(sys.modules, "cli_attacks", raising=False)
    return tmp_path


MODEL = ["--model", "pyrobust.models:small_cnn", "--weights", "w.safetensors", "--data", "d.npz"]
NUDGE = ["--attack", "cli_attacks:nudge", "--norm", "linf,l2", "--batch-size", "16"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"pyrobust {pyrobust.__version__}\n"


def test_without_arguments_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("evaluate", "compare", "info"))


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make imports of these packages fail, as where they are not installed."""
    original = builtins.__import__

    def guarded(name: str, *arguments, **keywords):
        if name.split(".")[0] in names:
            raise ImportError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", guarded)


def test_info_needs_no_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ops = types.ModuleType("pyrobust.ops")
    ops.native_info = lambda: {"cuda": False, "architectures": ["sm_90", "sm_100"], "gpus": []}
    monkeypatch.setitem(sys.modules, "pyrobust.ops", ops)
    without(monkeypatch, "typer", "rich", "matplotlib", "pyarrow", "jinja2", "sklearn", "safetensors")
    assert run("info") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["pyrobust"] == pyrobust.__version__
    assert lines["architectures"] == "sm_90, sm_100"
    assert lines["gpus"] == "none"


def test_the_rest_says_which_extra_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "typer", "rich")
    message = error_of(capsys, "evaluate")
    assert "pip install 'pyrobust[report]'" in message


def test_a_run_writes_its_folder_and_prints_its_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *MODEL, *NUDGE, "--out", "run") == 0
    out = capsys.readouterr().out
    summary = json.loads((place / "run" / "summary.json").read_text())
    for name in ("report.html", "results.parquet", "curves.png", "examples.png", "run.json"):
        assert (place / "run" / name).stat().st_size > 0
    assert "small_cnn on d: clean accuracy" in out
    assert "linf" in out
    assert f"report: {os.path.join('run', 'report.html')}" in out
    assert list(summary["norms"]) == ["linf", "l2"]
    for point in summary["norms"]["l2"]["nudge"]["robust_accuracy"]:
        assert f"{100 * point['accuracy']:.1f} %" in out


def test_resuming_a_finished_run_computes_nothing(place: Path) -> None:
    arguments = ["evaluate", *MODEL, *NUDGE, "--out", "run"]
    assert run(*arguments) == 0
    before = (place / "run" / "results.parquet").read_bytes()
    batches = {p: p.stat().st_mtime_ns for p in place.glob("run/batches/*/*")}
    (place / "run" / "report.html").unlink()
    assert run(*arguments, "--resume") == 0
    assert (place / "run" / "report.html").exists()
    assert (place / "run" / "results.parquet").read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in place.glob("run/batches/*/*")} == batches


def test_budget_attacks_sweep(place: Path) -> None:
    arguments = ["--attack", "cli_attacks:fade", "--norm", "inf", "--eps", "0.1,0.2", "--eps", "0.3"]
    assert run("evaluate", *MODEL, *arguments, "--out", "run") == 0
    results = pq.read_table(place / "run" / "results.parquet")
    assert results["eps"].unique().to_pylist() == [0.1, 0.2, 0.3]
    assert results["within_budget"].to_numpy().all()


def test_attacks_and_budgets_may_be_given_by_norm(place: Path) -> None:
    arguments = [
        "--norm",
        "linf",
        "--norm",
        "l2",
        "--attack",
        "linf=cli_attacks:fade",
        "--attack",
        "2=cli_attacks:nudge",
    ]
    assert run("evaluate", *MODEL, *arguments, "--eps", "linf=0.1,0.2", "--samples", "10", "--out", "run") == 0
    settings = json.loads((place / "run" / "run.json").read_text())["settings"]
    assert [(t["norm"], t["attack"], t["eps"]) for t in settings["tasks"]] == [
        ("linf", "fade", 0.1),
        ("linf", "fade", 0.2),
        ("l2", "nudge", None),
    ]
    assert settings["samples"] == 10


def test_one_call_for_the_number_takes_a_budget_of_gradients(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--attack", "minimum_norm", "--norm", "l2", "--samples", "8", "--batch-size", "8"]
    assert run("evaluate", *MODEL, *arguments, "--budget", "20", "--out", "run") == 0
    assert json.loads((place / "run" / "run.json").read_text())["settings"]["budget"] == 20
    figures = json.loads((place / "run" / "summary.json").read_text())["norms"]["l2"]["minimum_norm"]
    assert figures["success_rate"] == 1
    assert 14 <= figures["gradients"] <= 20  # of superdeepfool's six, samples that are done ask for none
    out = capsys.readouterr().out
    assert "gradients" in out
    assert formatting.count(figures["forwards"]) in out


def test_attacks_without_gradients_can_check_the_others(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--attack", "cli_attacks:nudge", "--norm", "l2", "--batch-size", "8", "--samples", "16"]
    assert run("evaluate", *MODEL, *arguments, "--check-masking", "8", "--out", "run") == 0
    found = json.loads((place / "run" / "summary.json").read_text())["masking_check"]["l2"]
    assert set(found["ahead"]) <= set(range(8))
    assert len(found["ahead"]) > 0  # blending with the negative is far from the smallest perturbation
    assert "attacks without gradients" in " ".join(capsys.readouterr().out.split())


def test_compare_prints_and_writes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *MODEL, *NUDGE, "--out", "one") == 0
    assert run("evaluate", "--model", "pyrobust.models:small_cnn", "--data", "d.npz", *NUDGE, "--out", "two") == 0
    capsys.readouterr()
    assert run("compare", "one", "two", "--out", "both", "--resamples", "100") == 0
    out = capsys.readouterr().out
    assert "area under curve" in out
    saved = json.loads((place / "both" / "comparison.json").read_text())
    change, low, high = saved["norms"]["linf"]["runs"]["two"]["area_difference"]
    assert low <= change <= high < 0  # an untrained network is worse
    assert f"{change:+.3g} [{low:.3g}, {high:.3g}]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--stepps", "3"], "No such option"),
        (["evaluate", "--steps", "three"], "--steps"),
        (["nothing"], "No such command"),
        (["evaluate", "--data", "d.npz"], "--model is missing"),
        (["evaluate", "--model", "a:b"], "--data is missing"),
        (["evaluate", "--resume"], "--resume needs --out"),
        (["evaluate", "--model", "nowhere", "--data", "d.npz"], "package.module:factory"),
        (["evaluate", "--model", "no.where:x", "--data", "d.npz"], "cannot import no.where"),
        (["evaluate", "--model", "pyrobust.models:nothing", "--data", "d.npz"], "has no 'nothing'"),
        (["evaluate", "--model", "builtins:dict", "--data", "d.npz"], "gave dict"),
        (["evaluate", *MODEL, *NUDGE, "--norm", "l7"], "norm: expected"),
        (["evaluate", *MODEL, *NUDGE, "--data", "missing.npz"], "no such file: missing.npz"),
        (["evaluate", *MODEL, *NUDGE, "--weights", "missing.pt"], "no such file: missing.pt"),
        (["evaluate", *MODEL, *NUDGE, "--eps", "0.1,x"], "--eps: expected numbers"),
        (["evaluate", *MODEL, *NUDGE, "--eps", "0.1"], "a list for each"),
        (["evaluate", *MODEL, *NUDGE, "--eps", "linf=0.1", "--eps", "0.1"], "names no norm"),
        (["evaluate", *MODEL, *NUDGE, "--attack", "l1=cli_attacks:nudge"], "names no norm"),
        (["evaluate", *MODEL, "--attack", "l1=cli_attacks:nudge", "--norm", "l2"], "not evaluated"),
        (["evaluate", *MODEL, *NUDGE, "--bounds", "1"], "two numbers"),
        (["evaluate", *MODEL, *NUDGE, "--budget", "5"], "none of the chosen attacks takes a budget"),
        (["evaluate", *MODEL, *NUDGE, "--check-masking", "-1"], "check_masking"),
        (["evaluate", *MODEL, *NUDGE, "--device", "no_such"], "device"),
        (["evaluate", *MODEL, "--attack", "cli_attacks:broken"], "KeyError: 'oops"),
        (["evaluate", *MODEL, "--attack", "no_such_attack"], "no attack 'no_such_attack'"),
        (["evaluate", *MODEL, *NUDGE, "--out", "."], "not empty"),
        (["compare", "one"], "two or more"),
        (["compare", "one", "two"], "holds no run"),
    ],
)
def test_errors_are_one_clear_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in error_of(capsys, *arguments)


def test_a_refused_resume_says_what_differs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", *MODEL, *NUDGE, "--out", "run") == 0
    assert "seed was 0, is 5" in error_of(capsys, "evaluate", *MODEL, *NUDGE, "--seed", "5", "--out", "run", "--resume")


def test_an_interruption_tells_how_to_go_on(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cli_attacks

    def stopped(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_attacks, "broken", stopped)
    assert run("evaluate", *MODEL, "--attack", "cli_attacks:broken", "--out", "run") == 130
    assert "--resume" in capsys.readouterr().err


def test_the_default_job_needs_no_arguments_and_is_resumable(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--samples", "24", "--steps", "5", "--out", "default") == 0
    summary = json.loads((place / "default" / "summary.json").read_text())
    assert list(summary["norms"]) == ["linf", "l2", "l1", "l0"]
    assert summary["clean_accuracy"] > 0.9
    assert (place / "default" / "model.safetensors").exists()
    before = (place / "default" / "results.parquet").read_bytes()
    for path in place.glob("default/batches/003/*"):
        path.unlink()
    assert run("evaluate", "--samples", "24", "--steps", "5", "--out", "default", "--resume") == 0
    assert (place / "default" / "results.parquet").read_bytes() == before

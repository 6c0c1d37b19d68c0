"""The experiment of tilting linear classifiers: it runs on digits, and its arithmetic is right."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest
import torch

from bench.reproduce._common import Claim, claims
from bench.reproduce.linear_tilting import SIZES, kept, main
from bench.reproduce.linear_tilting_report import nearest_centroid_errors, orderings, rank_correlation
from pyrobust.analysis.sweep import Sweep, regularisation_sweep
from pyrobust.data import digits

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

PAIRS = [(0, 1), (1, 8), (7, 9)]


def _made(**changed: torch.Tensor) -> Sweep:
    """Three pairs and λ = 1, 10, 100, such that all that the paper states holds."""
    rising = torch.tensor([[1.0, 2.0, 3.0]] * 3, dtype=torch.float64)
    angle = torch.tensor([[40.0, 20.0, 0.0], [50.0, 20.0, 0.0], [80.0, 30.0, 0.0]], dtype=torch.float64).deg2rad()
    test = torch.tensor([[0.02, 0.01, 0.2], [0.03, 0.02, 0.4], [0.05, 0.04, 0.1]], dtype=torch.float64)
    values = {
        "pairs": torch.tensor(PAIRS), "images": torch.tensor([5, 5, 5]), "lambdas": torch.tensor([1.0, 10.0, 100.0]),
        "weight": rising.unsqueeze(2), "bias": rising, "norm": rising.flip(1), "angle": angle, "adversarial_distance": rising,
        "error_distance": rising, "train_error": rising / 10, "test_error": test, "gap": 1e-5 * rising,
    }  # fmt: skip
    return Sweep(loss="hinge", **{**values, **changed})


CENTROID = torch.full((3, 2), 0.1, dtype=torch.float64)


def _judged(sweep: Sweep) -> list[bool]:
    return [claim.holds for claim in orderings(sweep, CENTROID, ((0, 1), (7, 9)), (1, 8))]


def test_orderings_hold_one_by_one() -> None:
    sweep = _made()
    assert _judged(sweep) == [True] * 8
    falling = sweep.adversarial_distance.flip(1)
    assert _judged(_made(adversarial_distance=falling)) == [False] + [True] * 7
    assert _judged(_made(train_error=sweep.train_error.flip(1)))[1] is False
    assert _judged(_made(test_error=sweep.test_error.sort(1).values))[2:4] == [False, False]
    assert _judged(_made(angle=sweep.angle + 0.1))[4] is False
    assert _judged(_made(angle=sweep.angle.flip(0)))[5:7] == [False, False]
    assert _judged(_made(train_error=sweep.train_error / 2))[7] is False


def test_what_does_not_hold_says_which_pairs_and_by_how_much() -> None:
    sweep = _made()
    assert [claim.why for claim in orderings(sweep, CENTROID, ((0, 1), (7, 9)), (1, 8))] == [""] * 8
    train, test = sweep.train_error.clone(), sweep.test_error.clone()
    train[1], test[0] = torch.tensor([0.3, 0.2, 0.4]), torch.tensor([0.005, 0.02, 0.2])
    found = orderings(_made(train_error=train, test_error=test), CENTROID, ((0, 1), (7, 9)), (1, 8))
    assert [claim.holds for claim in found[:3]] == [True, False, False]
    assert "1 / 8 gets 3 of 10 wrong there and 2 at λ = 10; d_err" in found[1].why
    assert "is least there all the same: 1 against 2" in found[1].why
    assert "0 / 1 has its least test error, 0.500 %, at the end λ = 1 already" in found[2].why
    assert found[2].why.endswith("0 of 3 pairs have a lower least test error")
    falling = sweep.adversarial_distance.flip(1)
    assert "7 / 9 has 3.0000 at λ = 1 and 1.0000 at the largest" in _first(_made(adversarial_distance=falling)).why
    told = claims([*found[:3], Claim("a", True, "1", "b")])
    assert told.count(". Why: ") == 2, "only of what does not hold"


def _first(sweep: Sweep) -> Claim:
    return orderings(sweep, CENTROID, ((0, 1), (7, 9)), (1, 8))[0]


def test_finished_pairs_are_kept_apart_by_solver_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    size, parts = SIZES["smoke"], [torch.zeros(3), torch.ones(2)]
    folder = kept(size, parts)
    assert kept(size, [part.clone() for part in parts]) == folder
    assert kept(dataclasses.replace(size, images=61), parts) != folder
    assert kept(size, [torch.zeros(3), torch.zeros(2)]) != folder
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda module: source(module) + "#")
    assert kept(size, parts) != folder


def test_rank_correlation_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    one = torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    other = torch.tensor([2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0])
    # Single-precision mean ranks of seven values are exact; the rest is a few roundings in float64.
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-14)


def test_nearest_centroid_errors() -> None:
    data = digits()
    assert data.train is not None
    sweep = regularisation_sweep(*data.train, *data.test, pairs=PAIRS[:1], lambdas=[1.0], images=40)
    (inputs, labels), train = data.test, data.train
    means = [train[0][train[1] == label][:40].double().mean(0).flatten() for label in PAIRS[0]]
    errors = nearest_centroid_errors(sweep, *data.train, *data.test)
    chosen = (labels == 0) | (labels == 1)
    nearer = torch.cdist(inputs[chosen].double().flatten(1), torch.stack(means)).argmin(1)
    assert float(errors[0, 1]) == float((nearer != labels[chosen]).double().mean())


def test_smoke(tmp_path: Path) -> None:
    assert main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())["hinge"]
    assert [tuple(pair) for pair in found["pairs"]] == list(SIZES["smoke"].pairs or ())
    for row in found["angle"]:
        assert row[0] > 0.3
        assert row[-1] < 1e-6, "enough regularisation undoes the tilt"
    assert max(map(max, found["gap"])) <= 1e-4
    (markdown,) = tmp_path.glob("*.md")
    text = markdown.read_text()
    assert text.count("**holds**") + text.count("**does not hold**") == 8
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 7
    assert all(f"({picture.name})" in text for picture in pictures)


def test_sizes_are_those_of_the_paper() -> None:
    assert (SIZES["full"].images, len(SIZES["full"].lambdas), SIZES["full"].pairs) == (3000, 81, None)
    assert dataclasses.replace(SIZES["quick"], losses=SIZES["full"].losses) == SIZES["full"]

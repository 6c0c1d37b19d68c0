"""The experiment of adversarial training beside spectral norms: it runs, finds its constants, and judges orderings right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.reproduce.spectral_regularisation import FOOLED, TOLERANCE, Experiment, main
from bench.reproduce.spectral_report import Found, Measured, orderings
from bench.reproduce.spectral_sizes import SIZES, strided_cnn
from pyrobust.training import CrossEntropy, DivergedError, Objective

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def test_smoke(tmp_path: Path) -> None:
    assert main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    star = content["eps"].index(content["eps_star"])
    assert [network["name"] for network in content["methods"]] == ["standard", "adversarial", "global SNR", "d.d. SNR"]
    assert [network["name"] for network in content["interpolation"]] == ["mix 0", "mix 0.5", "mix 1"]
    for network in content["methods"] + content["interpolation"]:
        accuracy = network["accuracy"]
        assert accuracy == sorted(accuracy, reverse=True), "what is broken stays broken"
        assert network["accuracy_under_both_attacks"] <= accuracy[star]
        assert network["largest_singular_value"] > 0
    assert content["methods"][0]["accuracy"][star] <= 1 - FOOLED
    assert content["interpolation"][0]["accuracy"] == content["methods"][1]["accuracy"]
    (markdown,) = tmp_path.glob("*.md")
    text = markdown.read_text()
    assert text.count("**holds**") + text.count("**does not hold**") == 10
    (figure,) = tmp_path.glob("*.png")
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert f"({figure.name})" in text


class _Curve(Experiment):
    """Clean accuracies that fall from 0.9 as the constant grows; at 100 and above training diverges."""

    def __init__(self) -> None:
        self.size = dataclasses.replace(SIZES["full"], trials=16)

    def network(self, label: str, objective: object) -> nn.Module:
        self.weight = float(label.rpartition(" ")[2])
        if self.weight >= 100:
            raise DivergedError("at once")
        return nn.Identity()

    def clean(self, model: nn.Module) -> float:
        return 0.9 / (1 + self.weight)


@pytest.mark.parametrize("first", [0.001, 0.5, 50.0, 1000.0])
def test_match_brackets_the_target(first: float) -> None:
    experiment = _Curve()
    trials, best, _ = experiment.match("any", first, 0.6, lambda weight: lambda model: Objective(ce=CrossEntropy()))
    assert best.clean is not None
    assert abs(best.clean - 0.6) <= TOLERANCE
    assert best in trials
    assert len({trial.weight for trial in trials}) == len(trials)
    assert [trial.clean is None for trial in trials] == [trial.weight >= 100 for trial in trials]


def test_orderings() -> None:
    generator = np.random.default_rng(0)

    def network(name: str, share: float) -> Measured:
        right = np.arange(400) < 400 * share
        generator.shuffle(right)
        return Measured(name, None, np.stack([np.ones(400, bool), right]), right, 1.0)

    shares = {"standard": 0.05, "adversarial": 0.4, "global SNR": 0.1, "d.d. SNR": 0.41}
    methods = [network(name, share) for name, share in shares.items()]
    found = Found(0.5, (1.0,), methods, [methods[1], methods[3]], {})
    assert [claim.holds for claim in orderings(found, found.at_star)] == [True] * 5
    reversed_roles = Found(0.5, (1.0,), methods[::-1], [methods[3], methods[0]], {})
    assert [claim.holds for claim in orderings(reversed_roles, found.at_star)] == [False] * 5


def test_the_narrow_network_has_seven_layers() -> None:
    model = strided_cnn((16, 32, 64))
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 7
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)

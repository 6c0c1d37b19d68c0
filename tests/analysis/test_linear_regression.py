"""The sections on linear classifiers between weight decay and adversarial training, on digits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from pyrobust.analysis import LOGISTIC_VARIANTS
from pyrobust.analysis.commands import linear_regression
from pyrobust.analysis.commands.linear_regression import further_linear_sections
from pyrobust.analysis.session import Session
from pyrobust.analysis.work import Work
from pyrobust.data import digits
from pyrobust.models import TwoClassLinear

DATA = digits()


def session(samples=40, **changes):
    inputs, labels = (part[:samples] for part in DATA.test)
    return replace(Session(torch.nn.Identity(), "linear", DATA, inputs, labels, torch.device("cpu")), **changes)


def test_sections():
    made = further_linear_sections(session(), steps=20, lr=0.03)
    by_title = {section.title: section for section in made}
    assert len(by_title) == len(made) == 11
    for section in made:
        assert section.figure is not None or section.slider is not None
        if section.slider is not None:
            assert len(section.slider.frames) == len(section.slider.values) > 1
    numbers = by_title["Logistic regressions: weights and perturbations"].data
    assert numbers.keys() == set(linear_regression.SHOWN)
    assert len(by_title["Logistic regressions: robust accuracy"].data["distance"][0]) == 40
    norms = by_title["Weight decay scales the loss"].data["norm"]
    assert norms[0] > norms[-1]
    risks = by_title["Adversarial training translates the data"].data["risk"]
    assert risks == sorted(risks)
    # The expert begins at the difference of the means of the threes and the sevens, and is not trained.
    inputs, labels = DATA.train
    kept = (labels == 3) | (labels == 7)
    expert = TwoClassLinear(64).initialise_as_expert(inputs[kept], (labels[kept] == 3).long())
    test, right = DATA.test
    kept = ((right == 3) | (right == 7)).nonzero().squeeze(1)[:40]
    error = (expert(test[kept]).argmax(1) != (right[kept] == 3)).double().mean()
    assert numbers["expert"]["clean"] == float(error)


def test_training_is_resumed(tmp_path, monkeypatch):
    kinds = {name: LOGISTIC_VARIANTS[name] for name in ("natural", "FGSM", "binarised")}

    def models(folder):
        here = session(work=Work(folder))
        return linear_regression._models(here, kinds, linear_regression.two_classes(here, None), steps=20, lr=0.03)

    first = models(tmp_path)
    monkeypatch.setattr(linear_regression, "logistic_model", None)  # kept parts are not computed again
    again = models(tmp_path)
    assert all(torch.equal(first[name].weight, again[name].weight) for name in kinds)
    assert again["binarised"].binarised


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"classes": (3, 3)}, "regression_classes: expected two"),
        ({}, {"classes": (3, 12)}, "regression_classes: expected two"),
        ({}, {"eps": 0.0}, "eps: expected"),
        ({}, {"lr": -1.0}, "lr: expected"),
        ({}, {"steps": 0}, "steps: expected"),
        ({"data": replace(DATA, train=None)}, {}, "data: expected one with a training part"),
    ],
)
def test_bad_options_are_named(changes, options, message):
    with pytest.raises(ValueError, match=message):
        further_linear_sections(session(**changes), **options)

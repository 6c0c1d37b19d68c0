"""Figures 1, 2, 6 and 7 of seed 000 at a tiny size: every figure, claim and number is there, and the numbers are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.reproduce import logistic_regression
from bench.reproduce.logistic_measures import PAPER, measure
from bench.reproduce.logistic_networks import AGAIN, HELD_OUT, VARIANTS, direction, pair, published_part
from pyrobust.data import Data, digits
from pyrobust.models import TwoClassLinear

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def test_logistic_regression(tmp_path: Path) -> None:
    assert logistic_regression.main(["--smoke", "--device", "cpu", "--out", str(tmp_path)]) == 0
    start = tmp_path / "logistic-regression-smoke-tables"
    markdown, content = start.with_suffix(".md").read_text(), json.loads(start.with_suffix(".json").read_text())
    for number in ("1", "2", "6", "7a", "7b"):
        picture = f"logistic-regression-smoke-figure-{number}.png"
        assert picture in markdown
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    for claim in content["claims"]:
        assert f"**{'holds' if claim['holds'] else 'does not hold'}**: {claim['text']}" in markdown
    assert len(content["claims"]) == 9
    assert content["models"].keys() == set(VARIANTS)
    assert content["few"].keys() == {"images", *AGAIN}
    for name, one in content["models"].items():
        assert one["disagree"] == 0
        assert one["clean"] <= one["fgsm"]
        assert one["clipped_length"] <= one["fgsm_length"] * (1 + 1e-6)
        assert f"{100 * one['clean']:.2f} %" in next(
            line for line in markdown.splitlines() if line.startswith(f"| {name} |")
        )
    assert PAPER.keys() <= VARIANTS.keys()


def test_measures_of_a_model_that_is_known() -> None:
    """One pixel decides: s = x₀ − ½, so perturbations of ¼ break what is within ¼ of the boundary."""
    model = TwoClassLinear(4, bias=True).requires_grad_(False)
    model.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
    model.bias.fill_(-0.5)
    inputs = torch.tensor([[0.1], [0.3], [0.4], [0.6], [0.9], [0.7]]).repeat(1, 4)
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    found = measure(model, inputs, labels)
    assert found.clean.tolist() == [False, False, True, False, False, True]
    assert found.fgsm.tolist() == [False, True, True, True, False, True]
    assert np.array_equal(found.clipped, found.fgsm)
    assert found.fgsm_length == pytest.approx(0.25)
    assert found.clipped_length == pytest.approx(0.25)
    assert found.disagree == 0
    torch.testing.assert_close(direction(model), torch.tensor([1.0, 0, 0, 0], dtype=torch.float64))


def test_threes_and_sevens() -> None:
    labels = torch.tensor([3, 7, 1, 7, 3])
    inputs, kept = pair((torch.arange(5.0).unsqueeze(1), labels))
    assert inputs.flatten().tolist() == [0, 1, 3, 4]
    assert kept.tolist() == [1, 0, 0, 1]


def test_images_that_the_published_code_draws() -> None:
    """By its own loop: batches begin at step · 128 mod b."""
    data = digits()
    count = 3 * HELD_OUT
    inputs, labels = torch.arange(float(count)).unsqueeze(1), torch.tensor([3, 7]).repeat(count // 2)
    large = replace(data, train=(inputs, labels))
    n = count - HELD_OUT
    batches = n // 128 - 1
    begins = {step * 128 % batches for step in range(50_000)}
    drawn = {HELD_OUT + i for begin in begins for i in range(begin, begin + 128)}
    assert published_part(large)[0].flatten().tolist() == sorted(drawn)
    few = published_part(Data("few", test=data.test, train=(inputs[:300], labels[:300])))
    assert len(few[1]) == 128

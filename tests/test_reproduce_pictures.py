"""Seed 001's LeNet example and seed 000's fooling images at a tiny size, and the arithmetic of what is said of filters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from reproduction import reproduced
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from bench.reproduce import fooling_images, weight_decay_lenet
from bench.reproduce._filters import filter_norms, roughness, vanished, variation
from bench.reproduce.fooling_claims import EPS, Curves, Kernels, judge
from bench.reproduce.weight_decay_lenet import HIGH, LOW, moved, one_of_each, temperature
from pyrobust.analysis import FoolingCurve, Recognised


def smoke(script: Any, folder: Path, name: str) -> tuple[str, dict[str, Any]]:
    markdown, content, pictures = reproduced(script, folder, name)
    assert markdown.count("](") == len(pictures)
    for claim in content["claims"]:
        assert f"**{'holds' if claim['holds'] else 'does not hold'}**: {claim['text']}" in markdown
    return markdown, content


def test_lenet(tmp_path: Path) -> None:
    markdown, content = smoke(weight_decay_lenet, tmp_path, "weight-decay-lenet")
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert len(content["claims"]) == 6
    size = weight_decay_lenet.SIZES["smoke"]
    for name, printed in (("LeNet low", 1.6), ("LeNet high", 1.2)):
        found = content[name]
        assert len(found["errors_by_epoch"]) == size.epochs
        train, test = found["errors_by_epoch"][-1]
        assert 0 <= train < 0.9  # guessing
        assert f"{printed:.1f} % · {100 * test:.2f} %" in markdown
        assert found["weights"].keys() == {"conv1", "conv2", "fc1", "fc2"}
        assert len(found["distances_shown"]) == 10
        assert len(found["distances"]) == size.moved
    rms = {name: content[name]["weights"]["fc1"]["rms"] for name in ("LeNet low", "LeNet high")}
    assert rms["LeNet high"] < rms["LeNet low"]


def test_fooling_images(tmp_path: Path) -> None:
    markdown, content = smoke(fooling_images, tmp_path, "fooling-images")
    assert len(list(tmp_path.glob("*.png"))) == 5
    assert len(content["claims"]) == 6
    for net in ("CNN-L2", "CNN", "CNN-Nat-L2", "CNN-Nat"):
        found = content[net]
        assert len(found["confidence"]) == 10
        assert len(found["success"]) == len(found["margin"]) == len(content["eps"])
        assert found["success"][0] == pytest.approx(0.1)  # noise is of one class of ten
        assert found["strict_success_at_16"] <= found["success"][content["eps"].index(16)]
        assert found["kernels"]["filters"] == [16, 32]
    assert "41–81 % · " in markdown


def test_one_of_each() -> None:
    labels = torch.arange(50) % 10
    chosen = one_of_each(labels)
    assert labels[chosen].tolist() == list(range(10))
    assert chosen == one_of_each(labels)


def test_moved_stops_at_the_confidence() -> None:
    """Logits s (x₀ − ½) of class 1 against 0, and −10⁶ of all others: p₁ = 0.95 lies at x₀ = ½ + t ln 19 / s."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1, 0] = 20
        model[1].bias.fill_(-1e6)
        model[1].bias[:2] = torch.tensor([0.0, -10.0])
    x = torch.tensor([[0.2, 0.5, 0.5, 0.5], [0.4, 0.1, 0.9, 0.5]]).reshape(2, 1, 2, 2)
    labels = torch.tensor([0, 0])
    found = moved(model, x, labels, temperature=2.0, steps=300)
    at = 0.5 + 2 * math.log(19) / 20
    for distance, start in zip(found.distances.tolist(), (0.2, 0.4), strict=True):
        assert at - start <= distance + 1e-6
        assert distance < at - start + 1 / 255 + 1e-6
    assert moved(model, x, labels, temperature=2.0, steps=3).distances.tolist() == [math.inf, math.inf]
    # Median confidence of margins 6 and 2: the lower, at which 2 / t = ln 19.
    assert temperature(model, x) == pytest.approx(2 / math.log(19), rel=1e-5)


def test_filters_measures() -> None:
    noise = torch.randn(100, 20, 5, 5, generator=torch.Generator().manual_seed(0))
    # A mean over 10⁵ weights; its standard error is below 0.02.
    assert roughness(noise) == pytest.approx(2, abs=0.06)
    assert roughness(torch.ones(3, 1, 4, 4)) == 0
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)  # neighbours differ by 1 along, by 0 across; mean square 14 / 4
    assert roughness(ramp) == pytest.approx(0.5 / 3.5)
    weight = torch.zeros(4, 1, 2, 2)
    weight[0, 0, 0, 0], weight[1, 0, 1, 1], weight[2, 0, 0, 1] = 3.0, 4.0, 0.039
    assert filter_norms(weight).tolist() == pytest.approx([3, 4, 0.039, 0])
    assert vanished(weight) == 2
    assert variation(torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 3.0)])) == pytest.approx(
        math.sqrt(2) / 2
    )


def test_judge_compares_what_it_says() -> None:
    layers = ("conv1", "conv2", "fc1", "fc2")
    weights = {
        name: {layer: {"rms": rms, "variation": spread, "roughness": rough} for layer in layers}
        for name, rms, spread, rough in ((LOW, 2.0, 0.1, 1.5), (HIGH, 1.0, 0.2, 1.0))
    }
    errors = {LOW: [[0.1, 0.1], [0.0, 0.016]], HIGH: [[0.2, 0.2], [0.012, 0.012]]}
    one = {
        name: weight_decay_lenet.Moved(torch.zeros(10), torch.full((10,), length))
        for name, length in ((LOW, 1.0), (HIGH, 2.0))
    }
    assert all(claim.holds for claim in weight_decay_lenet.judge(errors, weights, one, one))
    turned = [{LOW: found[HIGH], HIGH: found[LOW]} for found in (errors, weights, one)]
    missed = weight_decay_lenet.judge(*turned, turned[2])
    assert not any(claim.holds for claim in missed)
    assert missed[1].why == (
        "after 2 epochs of the paper's 50 LeNet low still gets 1.20 % of the training images wrong, 18.80 points fewer than halfway; "
        "LeNet high still gets 0.00 % of the training images wrong, 10.00 points fewer than halfway"
    )


SCRIPTS = ("linear-tilting", "weight-decay-lenet", "logistic-regression", "local-linearity", "fooling-images")


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_that_do_not_hold_say_why(name: str) -> None:
    path = Path(__file__).parents[1] / "bench" / "results" / "reproduce" / f"{name}-quick-tables.md"
    missed = [line for line in path.read_text().splitlines() if line.startswith("- **does not hold**")]
    assert all(". Why: " in line for line in missed)


def test_fooling_reasons_are_what_was_measured() -> None:
    eps = torch.tensor(EPS) / 255.0
    rising = torch.linspace(0.1, 0.9, len(EPS), dtype=torch.float64)
    names = ("CNN-L2", "CNN", "CNN-Nat-L2", "CNN-Nat")
    curves = {name: Curves(FoolingCurve(eps, rising, rising), 0.2) for name in names}
    confidence = dict(zip(names, (0.6, 0.7, 0.8, 0.9), strict=True))
    seen = {
        name: Recognised(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.full((2,), value))
        for name, value in confidence.items()
    }
    layers = [32, 64, 64]
    kernels = {
        name: Kernels(1.5 + 0.1 * i, layers, [0, 3, 1]) for i, name in enumerate((*names[1:], "CNN-L2", "untrained"))
    }
    stated = judge(seen, curves, kernels, 1234)
    assert not any(claim.holds for claim in stated)
    reasons = [claim.why for claim in stated if claim.why]
    assert all(reason.startswith("after 1,234 of the paper's 97,500 steps") for reason in reasons)
    for said, reason in zip(
        (
            "70 % against 90 %",
            "it is 0.90 where the ASR peaks, at 255/255",
            "which has 1.90",
            "0 of 32, 3 of 64, 1 of 64",
        ),
        reasons,
        strict=True,
    ):
        assert said in reason


@pytest.mark.parametrize("script", [weight_decay_lenet, fooling_images], ids=["lenet", "fooling"])
def test_without_data(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYROBUST_DATA", raising=False)
    assert script.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "PYROBUST_DATA" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

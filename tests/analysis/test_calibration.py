"""Calibration: bins by hand, the best temperature in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyrobust.analysis.calibration import calibration, nll_temperature, reliability
from pyrobust.analysis.temperature import softmax_temperature


def _logits(n: int = 400, classes: int = 4, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Labels drawn from softmax(z / 2): at a temperature of 2 the logits are calibrated."""
    generator = torch.Generator().manual_seed(0)
    z = scale * torch.randn(n, classes, dtype=torch.float64, generator=generator)
    return z, torch.multinomial((z / 2).softmax(1), 1, generator=generator).squeeze(1)


def _binary(confidences: list[float]) -> Tensor:
    """Logits of two classes, the first with these probabilities."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack((p.log(), (1 - p).log()), 1)


def test_bins_by_hand() -> None:
    logits = _binary([0.9, 0.8, 0.4, 0.95, 0.55])  # confidences 0.9, 0.8, 0.6, 0.95, 0.55; the third predicts class 1
    labels = torch.tensor([0, 1, 1, 0, 1])
    found = reliability(logits, labels, bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.counts.tolist() == [0, 0, 2, 3]
    torch.testing.assert_close(found.confidence[2:], torch.tensor([0.575, 2.65 / 3], dtype=torch.float64))
    torch.testing.assert_close(found.accuracy[2:], torch.tensor([0.5, 2 / 3], dtype=torch.float64))
    assert bool(found.accuracy[:2].isnan().all())
    assert found.ece == pytest.approx((abs(1.15 - 1) + abs(2.65 - 2)) / 5, rel=1e-12)
    nll = -(math.log(0.9) + math.log(0.2) + math.log(0.6) + math.log(0.95) + math.log(0.45)) / 5
    assert found.nll == pytest.approx(nll, rel=1e-12)
    assert found.temperature == 1


def test_a_bin_holds_its_upper_edge() -> None:
    logits = torch.zeros(3, 2, dtype=torch.float64)  # confidence 0.5 exactly
    assert reliability(logits, torch.zeros(3, dtype=torch.int64), bins=2).counts.tolist() == [3, 0]
    sure = torch.tensor([[2000.0, 0.0]])  # confidence 1 exactly
    assert reliability(sure, torch.tensor([0]), bins=2).counts.tolist() == [0, 1]


def test_against_a_loop() -> None:
    logits, labels = _logits()
    probs = (logits / 1.7).softmax(1)
    confidence, prediction = probs.max(1)
    right = (prediction == labels).double()
    for bins in (1, 7, 15):
        found, ece = reliability(logits, labels, temperature=1.7, bins=bins), 0.0
        for b in range(bins):
            chosen = (confidence > b / bins) & (confidence <= (b + 1) / bins)
            assert found.counts[b] == chosen.sum()
            if chosen.any():
                ece += abs(float((right[chosen] - confidence[chosen]).sum())) / len(labels)
        assert found.ece == pytest.approx(ece, rel=1e-12)
        assert found.nll == pytest.approx(float(nn.functional.cross_entropy(logits / 1.7, labels)), rel=1e-12)


def test_temperature_in_closed_form() -> None:
    """Logits (a, 0) that are right in a share p have their least loss where sigmoid(a / t) = p."""
    for a, right in ((3.0, 8), (0.2, 6)):
        logits = torch.tensor([[a, 0.0]], dtype=torch.float64).expand(10, 2)
        labels = (torch.arange(10) >= right).long()
        t = a / math.log(right / (10 - right))
        assert nll_temperature(logits, labels) == pytest.approx(t, rel=1e-11)


def test_temperature_is_the_least_loss() -> None:
    logits, labels = _logits(4000)
    t = nll_temperature(logits, labels)
    # 4000 labels: the estimate of 1/t has a standard error near 1 %.
    assert t == pytest.approx(2, rel=0.1)
    least = reliability(logits, labels, temperature=t).nll
    for other in (0.9 * t, 0.99 * t, 1.01 * t, 1.1 * t):
        assert reliability(logits, labels, temperature=other).nll > least
    assert nll_temperature(10 * logits, labels) == pytest.approx(10 * t, rel=1e-10)
    assert nll_temperature(logits + 5, labels) == pytest.approx(t, rel=1e-10)


def test_temperatures_without_a_minimum() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert nll_temperature(logits, torch.tensor([0, 1])) == 0
    assert nll_temperature(logits, torch.tensor([1, 0])) == math.inf
    found = calibration(lambda x: x, logits, torch.tensor([0, 1]))
    assert found.scaled is None
    ties = calibration(lambda x: 0 * x, logits, torch.tensor([0, 1]))
    assert ties.median is None


def test_calibration() -> None:
    logits, labels = _logits()
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5)).train()
    found = calibration(model, logits, labels, bins=10, batch_size=33)
    assert model[1].training
    for one, temperature in (
        (found.plain, 1.0),
        (found.scaled, nll_temperature(logits, labels)),
        (found.median, softmax_temperature(logits)),
    ):
        assert one is not None
        expected = reliability(logits, labels, temperature=temperature, bins=10)
        assert (one.temperature, one.ece, one.nll) == (expected.temperature, expected.ece, expected.nll)
        assert torch.equal(one.counts, expected.counts)
        assert int(one.counts.sum()) == len(labels)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    logits, labels = _logits()
    found = calibration(lambda x: x, logits, labels)
    axes = found.plot().axes
    assert found.scaled is not None
    assert found.median is not None
    for axis, one in zip(axes, (found.plain, found.scaled, found.median), strict=True):
        assert axis.get_title("left").startswith(f"t = {one.temperature:.3g},")
        assert len(axis.lines[-1].get_xdata()) == int((one.counts > 0).sum())
    (alone,) = found.scaled.plot().axes
    assert list(alone.lines[-1].get_xdata()) == list(axes[1].lines[-1].get_xdata())
    assert alone.get_title("left") == f"t = {found.scaled.temperature:.3g}: ECE {100 * found.scaled.ece:.1f} %"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(3)}, "logits: expected shape"),
        ({"logits": torch.full((3, 2), math.nan)}, "logits: expected finite"),
        ({"labels": torch.tensor([0, 1, 2])}, "labels: expected 0 <= label < 2"),
        ({"temperature": 0.0}, "temperature: expected"),
        ({"bins": 0}, "bins: expected"),
    ],
)
def test_errors(changed: dict[str, object], message: str) -> None:
    call = {"logits": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1])} | changed
    with pytest.raises(ValueError, match=message):
        reliability(**call)

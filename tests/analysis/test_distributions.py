"""Robustness distributions of points whose distance, class and fate are known; densities against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from pyrobust.analysis import RobustnessDistribution, plot_densities, robustness_distribution
from pyrobust.analysis.work import Work
from pyrobust.attacks import pdgd


def first_value(z):
    """Class 0, 1 or 2 as the first value is nearest to 0.25, 0.5 or 0.75."""
    centres = torch.tensor([0.25, 0.5, 0.75], dtype=z.dtype)
    return -(z.flatten(1)[:, :1] - centres).abs()


INPUTS = torch.tensor([[0.2, 0.6], [0.3, 0.1], [0.5, 0.5], [0.5, 0.0], [0.8, 0.6], [0.7, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1, 2, 0])  # the last is wrong
POINTS = torch.tensor(
    [
        [0.5, 1.0],
        [0.3, 0.9],
        [0.7, 0.5],
        [1.2, 0.0],
        [math.nan, 0.6],
        [0.2, 0.0],
    ],  # found, not, found, outside, NaN, wrong
    dtype=torch.float64,
)


def known(**options) -> RobustnessDistribution:
    return robustness_distribution(first_value, INPUTS, LABELS, POINTS, **options)


def test_fates_are_told_apart():
    found = known(batch_size=4)
    assert found.classes == 3
    assert found.predictions.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.correct.tolist() == [True] * 5 + [False]
    assert found.broken.tolist() == [True, False, True, False, False, False]
    assert found.found.tolist() == [1, 0, 2, 1, 2, 0]
    inf = math.inf
    assert found.distances.tolist() == pytest.approx([0.5, inf, 0.2, inf, inf, 0.0], abs=1e-15)
    ratios = [0.5 / math.sqrt(0.4), inf, 0.2 / math.sqrt(0.5), inf, inf, 0.0]
    assert found.ratios.tolist() == pytest.approx(ratios, rel=1e-14)
    assert found.success == 0.4
    assert found.rho == pytest.approx((ratios[0] + ratios[2]) / 2, rel=1e-14)
    assert found.confusion().tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("norm", "distances", "lengths"), [("linf", (0.4, 0.2), (0.6, 0.5)), (1, (0.7, 0.2), (0.8, 1.0))]
)
def test_other_norms(norm, distances, lengths):
    found = known(norm=norm)
    assert found.distances[found.broken].tolist() == pytest.approx(distances, rel=1e-14)
    ratios = [d / x for d, x in zip(distances, lengths, strict=True)]
    assert found.ratios[found.broken].tolist() == pytest.approx(ratios, rel=1e-14)


def test_bounds_decide_what_counts():
    assert known(bounds=(0.0, 1.2)).broken.tolist() == [True, False, True, True, False, False]


def made_up(n=200, failures=40) -> RobustnessDistribution:
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    distances[:failures] = math.inf
    labels = torch.arange(n) % 2
    labels[-10:] = 2
    predictions = labels.clone()
    predictions[-10:] = 0  # class 2 is never right
    distances[-10:] = 0
    return RobustnessDistribution("l2", 3, labels, predictions, labels, distances, distances / 5)


def test_the_density_is_scipys_and_failures_take_mass_away():
    stats = pytest.importorskip("scipy.stats")
    found, at = made_up(), torch.linspace(-0.5, 1, 3001, dtype=torch.float64)
    density = found.density(at)
    assert found.success == 150 / 190
    wanted = stats.gaussian_kde(found.ratios[found.broken].numpy())(at.numpy()) * found.success
    np.testing.assert_allclose(density.numpy(), wanted, rtol=1e-10, atol=1e-12)
    # The trapezoidal rule on a sum of Gaussians of width 0.02 at a spacing of 0.0005 is exact far beyond 1e-9.
    assert torch.trapezoid(density, at).item() == pytest.approx(found.success, abs=1e-9)


def test_quantiles_are_distances_that_break_such_a_share():
    found = made_up()
    levels = (1e-12, 0.25, 0.5, 0.75, 0.79, 1.0)
    table = found.quantiles(levels)
    assert table.shape == (4, 6)
    assert table[2].isnan().all()
    for row, chosen in ((0, found.labels == 0), (1, found.labels == 1), (3, torch.ones_like(found.correct))):
        distances = found.distances[chosen & found.correct]
        for level, value in zip(levels, table[row], strict=True):
            assert (distances <= value).double().mean() >= level
            assert (distances < value).double().mean() < level
    assert table[3, -1] == math.inf
    assert table[3, 2].isfinite()


def test_degenerate_cases():
    wrong = robustness_distribution(first_value, INPUTS[-1:], LABELS[-1:], POINTS[-1:])
    assert math.isnan(wrong.success)
    assert math.isnan(wrong.rho)
    assert wrong.quantiles().isnan().all()
    assert wrong.confusion().sum() == 0
    one = robustness_distribution(first_value, INPUTS[:1], LABELS[:1], POINTS[:1])
    assert one.density(torch.tensor([0.5])).isnan().all()
    assert one.success == 1.0


def test_points_of_an_attack_and_the_model_left_as_found():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 4))
    x = torch.rand(40, 1, 3, 3)
    labels = model.eval()(x).argmax(1)
    model.train()
    adv = pdgd(model, x, labels, steps=60)
    state = torch.get_rng_state()
    found = robustness_distribution(model, x, labels, adv, batch_size=16)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    broken = model.eval()(adv).argmax(1) != labels
    assert torch.equal(found.broken, broken)
    assert broken.any()
    length = (adv.double() - x.double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(found.distances[broken], length[broken], rtol=1e-14, atol=0)
    assert found.confusion().sum() == 40
    assert torch.equal(found.confusion().diagonal().sum(), (~broken).sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l0"}, "norm: expected"),
        ({"batch_size": 0}, "batch_size: expected"),
        ({"bounds": (0.0, 0.5)}, "inputs: expected values inside"),
        ({"adversarials": POINTS.float()}, "adversarials: expected"),
        ({"adversarials": POINTS[:3]}, "adversarials: expected"),
        ({"inputs": torch.zeros_like(INPUTS)}, "inputs: expected no sample of zeros"),
        ({"labels": LABELS + 1}, "labels: expected 0 <= label < 3"),
    ],
)
def test_bad_arguments_are_named(options, message):
    given = {"inputs": INPUTS, "labels": LABELS, "adversarials": POINTS} | options
    with pytest.raises(ValueError, match=message):
        robustness_distribution(first_value, **given)


@pytest.mark.parametrize("level", [0.0, 1.5])
def test_bad_levels_are_named(level):
    with pytest.raises(ValueError, match="levels: expected"):
        made_up().quantiles((level,))


def test_plots():
    pytest.importorskip("matplotlib")
    figure = made_up().plot()
    density, classes, confusion = figure.axes
    assert density.get_title(loc="left") == "broken: 150 of 190 correct samples"
    heights = sum(bar.get_height() * bar.get_width() for bar in density.patches)
    assert heights == pytest.approx(150 / 190)  # the histogram too misses the failures' mass
    assert [text.get_text() for text in classes.get_yticklabels()] == ["0", "1", "2", "all"]
    assert [text.get_text() for text in confusion.texts] == ["(95)", "0", "0", "0", "(95)", "0", "0", "0", "–"]
    other = known()
    (axis,) = plot_densities({"a": made_up(), "b": other}).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels[0].startswith("a (")
    assert "78.9 % broken" in labels[0]
    with pytest.raises(ValueError, match="distributions: expected"):
        plot_densities({})
    with pytest.raises(ValueError, match="distributions: expected"):
        plot_densities({"a": other, "b": known(norm="linf")})


def test_progress_is_told():
    seen = []
    known(batch_size=4, work=Work(progress=lambda p: seen.append(p.done)))
    assert seen == [0, 4, 6]

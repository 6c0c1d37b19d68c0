from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrobust.evaluation import RunError, compare_runs, evaluate
from pyrobust.evaluation.bootstrap import interval, resampled_means, supported_crossings

from .conftest import Halves


def scaled(factors: torch.Tensor):
    """An attack on `Halves` whose distance is the true one times a factor of each sample, in linf."""

    def attack(model, inputs, labels, *, sample_ids, bounds):
        means = inputs.flatten(1).mean(dim=1)
        # Beyond the boundary by a multiple of the way, and by a hair where the factor is 1.
        away = (0.5 - means) * factors[sample_ids] + torch.where(means < 0.5, 1e-4, -1e-4)
        return (inputs + away.view(-1, 1, 1, 1)).clamp(*bounds)

    return attack


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on 200 samples: the second needs 1.5 times as much on near samples, the same on far ones."""
    root = tmp_path_factory.mktemp("runs")
    means = torch.cat([torch.linspace(0.05, 0.45, 100), torch.linspace(0.55, 0.95, 100)])
    data = means.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), (means > 0.5).long()
    near = (means - 0.5).abs() < 0.2
    for name, factors in (("first", torch.ones(200)), ("second", torch.where(near, 1.5, 1.0))):
        evaluate(Halves().eval(), data, norms="linf", attacks=scaled(factors), out=root / name)
    return [root / "first", root / "second"]


def test_resamples_are_means_of_draws_with_replacement() -> None:
    values = np.arange(50.0)
    means = resampled_means(values, 4000, seed=1)
    assert means.shape == (4000,)
    assert means.mean() == pytest.approx(values.mean(), abs=0.15)
    assert means.std() == pytest.approx(values.std() / np.sqrt(50), rel=0.05)
    assert np.array_equal(means, resampled_means(values, 4000, seed=1))
    assert not np.array_equal(means, resampled_means(values, 4000, seed=2))


def test_each_resample_has_as_many_draws_as_samples() -> None:
    means = resampled_means(np.ones((30, 2)), 600, seed=0)
    assert (means == 1).all()


def test_runs_side_by_side_share_their_resamples() -> None:
    values = np.random.default_rng(0).random(80)
    means = resampled_means(np.stack([values, values + 0.25], axis=1), 500, seed=3)
    assert np.allclose(means[:, 1] - means[:, 0], 0.25)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = interval(resampled_means((generator.random(100) < 0.3).astype(float), 300, trial), 0.9)
        hits += low <= 0.3 <= high
    assert 0.84 <= hits / 300 <= 0.95


def test_crossings_need_support_on_both_sides() -> None:
    eps = np.arange(6.0)
    difference = np.array([2, 1, 0.5, -0.5, -1, -2])
    assert supported_crossings(eps, difference, difference - 0.7, difference + 0.7) == [(2.5, 1.0, 4.0)]
    assert supported_crossings(eps, difference, difference - 3, difference + 3) == []
    assert supported_crossings(eps, np.abs(difference), np.abs(difference) - 0.1, np.abs(difference) + 0.1) == []


def test_a_difference_that_is_there_is_found(runs: list[Path]) -> None:
    part = compare_runs(runs, resamples=300).norms[0]
    figures = part.figures["second"]
    change, low, high = figures["area_difference"]
    # Near samples, 0.05 … 0.2 from the boundary, need 0.5 more of it: compared with the figure by hand.
    means = np.concatenate([np.linspace(0.05, 0.45, 100), np.linspace(0.55, 0.95, 100)])
    gaps = np.abs(means - 0.5)
    assert change == pytest.approx(np.where(gaps < 0.2, 0.5 * gaps, 0).mean(), abs=1e-6)
    assert 0 < low < change < high
    assert part.figures["first"]["area_difference"] == [0, 0, 0]
    assert part.crossings == []
    assert (part.difference >= 0).all()


def test_intervals_are_paired(runs: list[Path]) -> None:
    part = compare_runs(runs, resamples=300).norms[0]
    own = (part.accuracy_interval[1] - part.accuracy_interval[0])[1]
    paired = (part.difference_interval[1] - part.difference_interval[0])[1]
    assert paired.max() < own.max()
    far = part.eps > 0.31  # there both curves are the same, and nothing is uncertain about their difference
    assert paired[far].max() == 0
    assert own[far].max() > 0


def test_a_comparison_is_saved_and_needs_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    comparison = compare_runs(runs, resamples=100)
    page = comparison.save(tmp_path)
    text = page.read_text()
    assert text.count("src=") == 1
    assert 'src="data:image/svg+xml;base64,' in text
    assert "200 samples in common" in text
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((tmp_path / "comparison.json").read_text())
    assert saved["runs"] == ["first", "second"]
    assert saved["norms"]["linf"]["runs"]["second"]["area"] == comparison.norms[0].figures["second"]["area"]


def sweep_run(folder: Path, data: tuple, eps: list[float], split: float = 0.5, **arguments) -> Path:
    def shift(model, inputs, labels, *, eps):
        return (inputs + torch.where(labels == 0, eps, -eps).view(-1, 1, 1, 1)).clamp(0, 1)

    evaluate(Halves(split).eval(), data, norms="linf", attacks=shift, eps=eps, out=folder, **arguments)
    return folder


def test_sweeps_are_compared_at_the_eps_they_share(points: tuple, tmp_path: Path) -> None:
    first = sweep_run(tmp_path / "a", points, [0.1, 0.2, 0.3])
    second = sweep_run(tmp_path / "b", points, [0.2, 0.3, 0.4], split=0.52)
    part = compare_runs([first, second], resamples=100).norms[0]
    assert part.swept
    assert part.eps.tolist() == [0, 0.2, 0.3]
    third = sweep_run(tmp_path / "c", points, [0.5])
    with pytest.raises(RunError, match="no eps in common"):
        compare_runs([first, third])


def test_crossings_of_sweeps_are_told(tmp_path: Path) -> None:
    # One model is right on everything but near its boundary, the other wrong on a fifth and far from it.
    means = torch.cat([torch.full((160,), 0.42), torch.full((40,), 0.12)])
    data = means.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), torch.zeros(200, dtype=torch.int64)
    near = sweep_run(tmp_path / "near", data, [0.02, 0.1, 0.2])
    far = sweep_run(tmp_path / "far", data, [0.02, 0.1, 0.2], split=0.415)
    comparison = compare_runs([near, far], resamples=200)
    assert comparison.norms[0].crossings == []  # `far` is never better: 0.42 is wrong for it from the start
    assert comparison.norms[0].figures["far"]["clean_accuracy"] == 0.2
    labels = torch.cat([torch.zeros(160), torch.ones(40)]).long()
    lifted = data[0].clone()
    lifted[160:] = 0.45
    mixed = lifted, labels
    careful = sweep_run(tmp_path / "careful", mixed, [0.02, 0.1, 0.2], split=0.435)
    bold = sweep_run(tmp_path / "bold", mixed, [0.02, 0.1, 0.2], split=0.6)
    crossings = compare_runs([careful, bold], resamples=200).norms[0].crossings
    assert len(crossings) == 1
    assert crossings[0].startswith("careful and bold cross at eps 0.0")
    assert crossings[0].endswith("bold is the more robust above.")


def test_what_makes_runs_less_comparable_is_told(points: tuple, tmp_path: Path) -> None:
    first = sweep_run(tmp_path / "a", points, [0.1])
    fewer = sweep_run(tmp_path / "b", points, [0.1], samples=8, seed=4)
    found = compare_runs([first, fewer], resamples=100)
    assert found.samples == 8
    assert found.warnings == [
        "The runs have different numbers of samples; compared on the first 8.",
        "b and a differ in seed.",
    ]


def test_runs_that_cannot_be_compared_are_refused(points: tuple, tmp_path: Path) -> None:
    first = sweep_run(tmp_path / "a", points, [0.1])
    other = sweep_run(tmp_path / "b", (points[0], 1 - points[1]), [0.1])
    with pytest.raises(RunError, match="b has other labels than a"):
        compare_runs([first, other])
    with pytest.raises(ValueError, match="two or more different"):
        compare_runs([first, first])
    with pytest.raises(RunError, match="holds no run"):
        compare_runs([first, tmp_path])
    with pytest.raises(ValueError, match="resamples"):
        compare_runs([first, other], resamples=5)

from __future__ import annotations

import math

import pytest
import torch

from pyrobust.evaluation.checks import budget_tolerance, perturbation_norms, predict, verify


def judge(point: torch.Tensor, label: int = 0, prediction: int = 1, **arguments):
    clean = torch.full_like(point, 0.5)
    labels, predictions = torch.tensor([label]), torch.tensor([prediction])
    return verify(clean, point, labels, predictions, **{"norm": "linf", "bounds": (0.0, 1.0), **arguments})


def test_norms_by_hand() -> None:
    clean = torch.zeros(1, 2, 2, 2)
    point = clean.clone()
    point[0, 0, 0, 0], point[0, 1, 0, 0], point[0, 1, 1, 1] = 0.5, -0.25, 1.0
    norms = perturbation_norms(clean, point)
    assert norms["l0"].item() == 2  # two pixels, one of them in both channels
    assert norms["l1"].item() == 1.75
    assert norms["l2"].item() == math.sqrt(0.25 + 0.0625 + 1)
    assert norms["linf"].item() == 1
    assert perturbation_norms(clean.flatten(1), point.flatten(1))["l0"].item() == 3


def test_norms_are_taken_in_float64() -> None:
    clean = torch.zeros(1, 1 << 16)
    point = torch.full_like(clean, 0.1)
    norm = perturbation_norms(clean, point)["l1"]
    assert norm.dtype == torch.float64
    assert norm.item() == pytest.approx((1 << 16) * float(torch.tensor(0.1)), rel=1e-14)


def test_a_good_point_counts() -> None:
    verdict = judge(torch.full((1, 4), 0.75))
    assert verdict.adversarial.item()
    assert verdict.norms["l2"].item() == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_points_that_are_not_finite_never_count(value: float) -> None:
    point = torch.full((1, 4), 0.75)
    point[0, 2] = value
    verdict = judge(point)
    assert not verdict.finite.item()
    assert not verdict.adversarial.item()
    assert math.isnan(verdict.norms["linf"].item())


@pytest.mark.parametrize("value", [1 + 2**-23, -1e-30])
def test_points_outside_the_box_never_count(value: float) -> None:
    point = torch.full((1, 4), 0.75)
    point[0, 1] = value
    verdict = judge(point)
    assert not verdict.in_bounds.item()
    assert not verdict.adversarial.item()


def test_the_box_is_compared_in_the_dtype_of_the_points() -> None:
    # float32(0.1) > 0.1 and float32(0.7) < 0.7: clipping to them must not look like leaving the box.
    point = torch.tensor([[0.1, 0.7]])
    verdict = verify(point, point, torch.tensor([0]), torch.tensor([1]), norm="l2", bounds=(0.1, 0.7))
    assert verdict.in_bounds.item()


def test_the_prediction_decides_and_a_missing_one_is_no_success() -> None:
    point = torch.full((1, 4), 0.75)
    assert not judge(point, prediction=0).adversarial.item()
    assert not judge(point, prediction=-1).adversarial.item()
    assert judge(point, label=3, prediction=3, targeted=True).adversarial.item()
    assert not judge(point, label=3, prediction=1, targeted=True).adversarial.item()


def test_budgets_hold_up_to_rounding_and_no_further() -> None:
    clean = torch.full((1, 100), 0.3)
    eps = 0.1
    inside = clean + eps  # rounds to a little more or less than eps away
    args = {"labels": torch.tensor([0]), "predictions": torch.tensor([1]), "norm": "linf", "bounds": (0.0, 1.0)}
    assert verify(clean, inside, eps=eps, **args).within_budget.item()
    assert not verify(clean, clean + eps * 1.001, eps=eps, **args).within_budget.item()
    assert verify(clean, clean + 5, **args).within_budget.item()


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_the_tolerance_covers_what_float32_rounding_does(norm: str) -> None:
    torch.manual_seed(0)
    clean = torch.rand(64, 3072)
    direction = torch.randn(64, 3072)
    order = {"l1": 1, "l2": 2, "linf": math.inf}[norm]
    for eps in (1e-3, 0.1, 3.0):
        step = eps * direction / direction.norm(order, dim=1, keepdim=True)
        excess = perturbation_norms(clean, clean + step)[norm] - eps
        tolerance = budget_tolerance(clean, clean + step, norm, eps)
        assert (excess <= tolerance).all()
        assert (tolerance < 1e-3 * max(eps, clean.norm(order, dim=1).max().item())).all()


def test_counting_has_no_tolerance() -> None:
    clean = torch.zeros(1, 1, 3, 3)
    point = clean.clone()
    point[0, 0, 0, :] = 1
    args = {"labels": torch.tensor([0]), "predictions": torch.tensor([1]), "norm": "l0", "bounds": (0.0, 1.0)}
    assert verify(clean, point, eps=3, **args).within_budget.item()
    assert not verify(clean, point, eps=2, **args).within_budget.item()


def test_logits_that_are_not_finite_predict_no_class() -> None:
    _, predictions = predict(lambda x: torch.tensor([[0.0, 1.0], [math.nan, 1.0], [math.inf, 0.0]]), torch.zeros(3, 2))
    assert predictions.tolist() == [1, -1, -1]


def test_a_model_without_one_row_of_logits_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="expected logits"):
        predict(lambda x: torch.zeros(2, 1), torch.zeros(2, 4))

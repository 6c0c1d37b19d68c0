"""Perturbations along singular vectors that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pyrobust import ops
from pyrobust.analysis import alignment, jacobian, reinitialised
from pyrobust.attacks import deepfool
from tests.training.pieces import batch_of, relu_net


def known() -> tuple[nn.Module, Tensor]:
    """A linear map of the singular values 3, 2, 1, and its right singular vectors as rows."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(8, 3, generator=generator, dtype=torch.float64))[0].T
    model = nn.Linear(8, 3).double()
    model.weight.data.copy_(left * torch.tensor([3.0, 2, 1], dtype=torch.float64) @ right)
    return model, right


def test_along_each_singular_vector() -> None:
    model, right = known()
    x = torch.rand(3, 8, dtype=torch.float64)
    found = alignment(model, x, x - 0.1 * right)
    # The difference x − 0.1 v − x is v to the rounding of x over 0.1.
    torch.testing.assert_close(found.cosines, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(found.values, torch.tensor([[3.0, 2, 1]] * 3, dtype=torch.float64), rtol=1e-14, atol=0)
    mixed = alignment(model, x, x + 0.3 * right[0] - 0.4 * right[1])
    torch.testing.assert_close(
        mixed.cosines, torch.tensor([[0.6, 0.8, 0]] * 3, dtype=torch.float64), rtol=0, atol=1e-14
    )
    torch.testing.assert_close(mixed.shares.sum(1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_the_smallest_perturbation_of_a_linear_network_with_two_classes() -> None:
    """It lies along w₁ − w₀; of orthogonal rows of equal length, half its square is on each singular vector."""
    weight = torch.zeros(2, 6, dtype=torch.float64)
    weight[0, 1], weight[1, 4] = 2.0, 1.0
    x = 0.25 + 0.5 * torch.rand(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = (x @ weight.T).argmax(1)
    adv = deepfool(lambda z: z @ weight.T, x, labels)
    found = alignment(lambda z: z @ weight.T, x, adv)
    assert bool((adv != x).any(1).all())
    share = torch.tensor([[4 / 5, 1 / 5]] * 5, dtype=torch.float64)  # (2, −1) / √5 in the singular basis
    torch.testing.assert_close(found.shares, share, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dimension", [2, 3, 50])
def test_random_directions(dimension: int) -> None:
    """Closed forms against a hundred thousand directions: standard errors are below 0.31 / √10⁵ = 1e-3 of |cos| and cos²."""
    like = torch.empty(100_000, dimension, dtype=torch.float64)
    directions = ops.dual_normalize(ops.sample_lp_ball(like, 2.0), 2.0)[:, 0].abs()
    model, x = nn.Linear(dimension, 2).double(), torch.rand(1, dimension, dtype=torch.float64)
    found = alignment(model, x, x + 1)
    assert float(directions.mean()) == pytest.approx(found.expected_cosine, abs=5e-3)
    assert float(directions.square().mean()) == pytest.approx(found.expected_share, abs=5e-3)
    assert found.expected_share == 1 / dimension
    if dimension == 2:
        assert found.expected_cosine == pytest.approx(2 / math.pi, rel=1e-14)
    if dimension == 3:
        assert found.expected_cosine == pytest.approx(0.5, rel=1e-14)


def test_of_a_layer_and_in_parts() -> None:
    model, x = relu_net(), batch_of(5).inputs
    moved = x + 0.1 * torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = alignment(model, x, moved, "3", batch_size=2)
    _, values, right = torch.linalg.svd(jacobian(model, x, "3"), full_matrices=False)
    unit = (moved - x) / (moved - x).norm(dim=1, keepdim=True)
    expected = (right @ unit.unsqueeze(2)).squeeze(2).abs()
    torch.testing.assert_close(found.cosines, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.values, values, rtol=0, atol=1e-14)
    assert found.dimension == 6


def test_samples_that_did_not_move_have_no_direction() -> None:
    model, right = known()
    x = torch.rand(3, 8, dtype=torch.float64)
    moved = x.clone()
    moved[1] += right[2]
    found = alignment(model, x, moved)
    assert found.cosines.isnan().all(1).tolist() == [True, False, True]
    assert float(found.cosines[1, 2]) == pytest.approx(1, abs=1e-14)


def test_reinitialised() -> None:
    model = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double().train()
    )
    model[1].running_mean.fill_(7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    fresh = reinitialised(model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not fresh.training
    assert not torch.equal(fresh[0].weight, model[0].weight)
    assert not fresh[1].running_mean.any()
    assert fresh[4].weight.dtype == torch.float64
    assert torch.equal(fresh[4].weight, reinitialised(model)[4].weight)
    assert not torch.equal(fresh[4].weight, reinitialised(model, seed=1)[4].weight)
    own = nn.Module()
    own.weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"model: 0 \(Module\) has no reset_parameters"):
        reinitialised(nn.Sequential(own))


@pytest.mark.parametrize(
    ("perturbed", "message"),
    [
        (torch.zeros(2, 8), "perturbed: expected a tensor of the shape"),
        (torch.zeros(3, 8, dtype=torch.float64), "perturbed: expected a tensor of the shape"),
        (torch.full((3, 8), torch.nan), "perturbed: expected finite values"),
        (torch.zeros(3, 8), "at least one sample that differs"),
    ],
)
def test_errors(perturbed: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alignment(nn.Linear(8, 3), torch.zeros(3, 8), perturbed)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    model, x = relu_net(), batch_of(5).inputs
    moved = torch.cat([x[:1], x[1:] + 0.1])
    found = alignment(model, x, moved)
    (axis,) = found.plot().axes
    assert axis.lines[0].get_ydata() == pytest.approx(found.cosines[1:].mean(0))
    assert axis.lines[1].get_ydata()[0] == pytest.approx(found.expected_cosine)

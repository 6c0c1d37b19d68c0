"""Margin maximisation: the hinge, the sensitivity of the margin, and what they are for linear classifiers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyrobust.training import CrossEntropy, Hinge, MarginSensitivity, Objective

from .toys import (
    Passes,
    batch_of,
    clean_and_robust,
    deepfool_distance,
    gradients,
    linear,
    network,
    numerical_gradients,
    on_digits,
    permuted,
    plain_on_digits,
    value,
)

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


def sensitivities(model, batch, norm):
    """(N, K): ‖∇z_y − ∇z_j‖ for every j, from the whole Jacobian of each sample."""
    rows = []
    for x, y in zip(batch.inputs.detach(), batch.labels, strict=True):
        jac = torch.autograd.functional.jacobian(lambda point: model(point[None])[0], x).flatten(1)
        rows.append(torch.linalg.vector_norm(jac[y] - jac, DUAL[norm], dim=1))
    return torch.stack(rows)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_the_largest_norm_of_a_difference_of_gradients(norm):
    model, batch = network(), batch_of()
    expected = sensitivities(model, batch, norm).amax(1)
    torch.testing.assert_close(value(MarginSensitivity(norm), model, batch), expected.mean(), rtol=1e-12, atol=0)
    squared = value(MarginSensitivity(norm, squared=True), model, batch_of())
    torch.testing.assert_close(squared, (expected**2).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("squared", [False, True])
def test_its_gradient_is_that_of_finite_differences(norm, squared):
    model, term = network(), MarginSensitivity(norm, squared=squared)
    numbers = numerical_gradients(lambda: value(term, model, batch_of()).detach(), model)
    # Central differences with 1e-6 in float64: 1e-16 / 1e-6 from rounding, 1e-12 from curvature.
    for ours, number in zip(gradients_or_zero(term, model, batch_of()), numbers, strict=True):
        torch.testing.assert_close(ours, number, rtol=1e-6, atol=1e-8)


def gradients_or_zero(term, model, batch):
    """The last bias moves no gradient at the inputs."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(value(term, model, batch), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_for_a_linear_svm_both_are_the_classical_objective(norm):
    """Eq. 3.14 with f(x) = ⟨w, x⟩ + b: C ‖w‖_q + (1 − y f)₊, exact."""
    model, batch = linear(classes=2), batch_of(classes=2)
    w = model[1].weight[1] - model[1].weight[0]
    f = batch.inputs.flatten(1) @ w + model[1].bias[1] - model[1].bias[0]
    hinge = torch.clamp(1 - (2 * batch.labels - 1) * f, min=0).mean()
    expected = 0.3 * torch.linalg.vector_norm(w, DUAL[norm]) + hinge
    batch.inputs.requires_grad_()
    loss, _ = Objective(hinge=Hinge(), sensitivity=(0.3, MarginSensitivity(norm)))(model, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)


def test_the_margin_over_the_sensitivity_is_the_distance_to_a_linear_boundary():
    model, batch = linear(classes=2), batch_of(classes=2)
    batch.labels = model(batch.inputs).argmax(1)
    z = model(batch.inputs)
    distance = (z.amax(1) - z.amin(1)) / value(MarginSensitivity("l2"), model, batch)
    direction = model[1].weight[1] - model[1].weight[0]
    for x, y, d in zip(batch.inputs.detach().flatten(1), batch.labels, distance, strict=True):
        edge = x + (1 - 2 * y) * d * direction / direction.norm()
        logits = model(edge[None])[0]
        torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-13)


def test_the_hinge_is_that_of_the_best_other_class():
    model, batch = network(), batch_of()
    with torch.no_grad():
        model[-1].weight *= 10  # some margins above 1, some below
    z = model(batch.inputs).detach()
    hand = []
    for row, y in zip(z, batch.labels, strict=True):
        hand.append(max(max(0.0, float(1 + row[j] - row[y])) for j in range(4) if j != y))
    assert sum(h > 0 for h in hand) > 0
    torch.testing.assert_close(float(value(Hinge(), model, batch).detach()), sum(hand) / len(hand), rtol=1e-12, atol=0)
    easy = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double()
    with torch.no_grad():
        easy[1].weight.zero_()
        easy[1].bias.copy_(torch.tensor([3.0, 0, 0, 0]))
    sure = batch_of()
    sure.labels.zero_()
    assert value(Hinge(), easy, sure) == 0


def test_top_k_compares_the_likeliest_classes_alone():
    model, batch = network(), batch_of()
    every = sensitivities(model, batch, "l2")
    logits = model(batch.inputs).detach().scatter(1, batch.labels.unsqueeze(1), -torch.inf)
    for k in (1, 2, 3, 9):
        chosen = logits.topk(min(k, 3), 1).indices
        expected = every.gather(1, chosen).amax(1).mean()
        torch.testing.assert_close(value(MarginSensitivity(top_k=k), model, batch_of()), expected, rtol=1e-12, atol=0)
    assert value(MarginSensitivity(top_k=1), model, batch_of()) < value(MarginSensitivity(), model, batch_of())


@pytest.mark.parametrize(("top_k", "gradients_asked"), [(None, 5), (2, 4), (1, 2)])
def test_one_forward_pass_and_k_gradients_one_with_a_graph_and_the_backward_pass(top_k, gradients_asked):
    model, batch = network(), batch_of()
    passes = Passes(model)
    loss, _ = Objective(ce=CrossEntropy(), sensitivity=MarginSensitivity(top_k=top_k))(model, batch)
    loss.backward()
    assert (passes.forward, passes.backward) == (1, gradients_asked)


def test_rows_pulled_back_together_are_those_pulled_back_one_by_one(monkeypatch):
    model = network()
    alone = value(MarginSensitivity("l2"), model, batch_of())
    monkeypatch.setattr("pyrobust.attacks._jacobian._rows_of_chunk", lambda point: 2)
    torch.testing.assert_close(value(MarginSensitivity("l2"), model, batch_of()), alone, rtol=1e-13, atol=0)


def test_a_sample_does_not_depend_on_those_beside_it():
    model, batch = network(), batch_of()
    alone = [
        value(MarginSensitivity("linf"), model, permuted(batch, torch.tensor([i]))) for i in range(len(batch.labels))
    ]
    torch.testing.assert_close(
        value(MarginSensitivity("linf"), model, batch), torch.stack(alone).mean(), rtol=1e-12, atol=0
    )


def test_the_same_bits_every_time():
    model = network()
    with_ce = [
        torch.stack([g.sum() for g in gradients_or_zero(MarginSensitivity(), model, batch_of())]) for _ in range(2)
    ]
    assert torch.equal(*with_ce)
    assert all(torch.equal(a, b) for a, b in zip(gradients(Hinge(), model, batch_of()), gradients(Hinge(), model, batch_of()), strict=True))  # fmt: skip


def test_a_model_without_a_slope_has_none():
    model = network()
    with torch.no_grad():
        model[-1].weight.zero_()
    batch = batch_of()
    loss = value(MarginSensitivity("l2"), model, batch)
    assert loss == 0
    assert torch.autograd.grad(loss, model[-1].weight)[0].isfinite().all()


def test_it_works_under_autocast_and_with_batch_norm():
    model, batch = network(dtype=torch.float32, extras=True).train(), batch_of(16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = value(MarginSensitivity("linf"), model, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert model[1].weight.grad.isfinite().all()
    assert model[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarginSensitivity("l0"), "norm: expected"),
        (lambda: MarginSensitivity(top_k=0), "top_k: expected"),
        (lambda: MarginSensitivity()(network(), batch_of()), "batch.inputs: expected"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- effect ----


@pytest.mark.parametrize(
    ("term", "weight", "loss"),
    [("l2", 0.5, Hinge), ("linf", 0.1, Hinge), ("l2", 0.25, CrossEntropy)],
    ids=["hinge-l2", "hinge-linf", "cross-entropy-l2"],
)
def test_training_moves_the_boundary_away(term, weight, loss):
    """The mean distance to DeepFool's points grows by a tenth at least, and PGD finds 10 points fewer (3.5 standard errors
    of 300 images), for at most 4 points of clean accuracy."""
    plain = plain_on_digits(8)
    trained = on_digits(Objective(loss=loss(), sensitivity=(weight, MarginSensitivity(term))), epochs=8)
    clean, robust = clean_and_robust(trained)
    plain_clean, plain_robust = clean_and_robust(plain)
    assert robust >= plain_robust + 0.10
    assert clean >= plain_clean - 0.04
    assert deepfool_distance(trained) >= 1.1 * deepfool_distance(plain)

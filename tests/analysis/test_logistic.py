"""Linear classifiers: losses at worst points, exact robustness against the attacks, trained variants."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from oracles import half_space
from torch import nn

from pyrobust import attacks
from pyrobust.analysis import (
    LOGISTIC_VARIANTS,
    LogisticVariant,
    extreme_pixels,
    fast_gradient_points,
    linear_robustness,
    logistic_model,
    loss_translation,
    weight_images,
)
from pyrobust.analysis.work import Work
from pyrobust.models import MeanStd, TwoClassLinear
from pyrobust.training import Batch, LinearWorstCase

SHAPE, SIZE = (1, 5, 5), 25
DUALS = {"linf": 1, "l2": 2, "l1": math.inf}


def problem(count=80, seed=0, dtype=torch.float64):
    """Inputs with values at both bounds, a model with a bias, and labels that it mostly gets right."""
    g = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(count, *SHAPE, generator=g, dtype=torch.float64) - 0.2).clamp(0, 1).to(dtype)
    model = TwoClassLinear(SIZE, bias=True, seed=seed).to(dtype).requires_grad_(False)
    model.bias.fill_(-float(model.weight.sum()) / 2)
    labels = model(x).argmax(1)
    labels[::7] = 1 - labels[::7]
    return model, x, labels


MODEL, X, LABELS = problem()
MODELS = {"a": MODEL, "b": problem(seed=1)[0]}


def margins(model, x, labels):
    low, high = model(x).unbind(1)
    return (2 * labels - 1) * (high - low)


def test_a_linear_model_is_one_where_its_weights_are_nearly_zero():
    """In float32 the score 10⁻⁶ is lost in the rounding of the first input's, by which the bias is found."""
    model = TwoClassLinear(2).requires_grad_(False)
    model.weight.copy_(torch.tensor([[1.0, 1e-6]]))
    x = torch.tensor([[0.3, 0.7], [0.0, 1.0]])
    found = loss_translation(model, x, torch.tensor([1, 1]))
    torch.testing.assert_close(found.score, torch.tensor([0.3 + 7e-7, 1e-6], dtype=torch.float64), rtol=0, atol=1e-7)
    bent = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sigmoid()).requires_grad_(False)
    bent[0].weight.copy_(torch.tensor([[2.0, -1.0], [-1.0, 2.0]]))
    with pytest.raises(ValueError, match="affine"):
        loss_translation(bent, x, torch.tensor([1, 1]))


@pytest.mark.parametrize("norm", ["l2", "linf", "l1"])
@pytest.mark.parametrize("loss", ["softplus", "hinge"])
def test_shifted_loss_is_the_worst_case(norm, loss):
    found = loss_translation(MODEL, X, LABELS, norm=norm, loss=loss, batch_size=33)
    assert found.length == pytest.approx(float(torch.linalg.vector_norm(MODEL.weight, DUALS[norm])), rel=1e-14)
    for eps in (0.0, 0.1, 0.7):
        batch = Batch(X.clone().requires_grad_(), LABELS, torch.arange(len(X)))
        worst = LinearWorstCase(loss, norm=norm, eps=eps)(MODEL, batch).detach()
        assert found.risk(eps=eps) == pytest.approx(float(worst), rel=1e-12)
        ball = linear_robustness({"m": MODEL}, X, LABELS, norm=norm, bounds=(-100.0, 100.0))
        assert found.error(eps) == pytest.approx(1 - float(ball.accuracy([eps])), abs=1e-12)


def test_scaled_weights_scale_the_loss():
    found = loss_translation(MODEL, X, LABELS)
    for scale in (0.0, 0.3, 4.0):
        expected = F.softplus(-scale * margins(MODEL, X, LABELS)).mean()
        assert found.risk(scale=scale) == pytest.approx(float(expected), rel=1e-13)
    torch.testing.assert_close(found.distance * found.length, margins(MODEL, X, LABELS))
    torch.testing.assert_close(found.penalty(found.distance, 0.3), F.softplus(-0.3 * margins(MODEL, X, LABELS)))


def test_models_behind_layers_are_read_through():
    model = nn.Sequential(MeanStd([0.3], [0.2]), TwoClassLinear(SIZE, seed=3)).double()
    found = loss_translation(model, X, LABELS)
    torch.testing.assert_close(found.score, model(X).diff(dim=1).squeeze(1).detach(), rtol=0, atol=1e-13)
    assert found.length == pytest.approx(float(model[1].weight.detach().norm()) / 0.2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_distances_as_by_bisection(norm):
    found = linear_robustness(MODELS, X, LABELS, norm=norm, batch_size=13)
    for model, distance in zip(MODELS.values(), found.distance, strict=True):
        sign = (2 * LABELS - 1).double()
        optimum, _ = half_space(X, sign.unsqueeze(1) * model.weight, sign * model.bias, norm, (0.0, 1.0), 1)
        torch.testing.assert_close(distance, optimum, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fgsm_breaks_what_is_as_near(dtype):
    model, x, labels = problem(count=300, dtype=dtype)
    found = linear_robustness({"m": model}, x, labels)
    sizes = [0.0, 0.02, 0.1, 0.3]
    right = [(model(attacks.fgm(model, x, labels, eps=eps)).argmax(1) == labels).double().mean() for eps in sizes[1:]]
    assert found.accuracy(sizes)[0, 1:].tolist() == [float(share) for share in right]
    assert found.accuracy([0.0])[0, 0] == (model(x).argmax(1) == labels).double().mean()


def test_candidates_are_the_attacks_points():
    right = MODEL(X).argmax(1) == LABELS  # the attacks leave the others as they are
    for scale, attack in ((None, attacks.fgm), (3.0, attacks.fgm_clipped)):
        given = {} if scale is None else {"scale": scale}
        points = fast_gradient_points(MODEL, X, LABELS, eps=0.2, scale=scale)
        expected = attack(MODEL, X, LABELS, eps=0.2, **given)
        torch.testing.assert_close(points[right], expected[right], rtol=0, atol=1e-15)
        assert (margins(MODEL, points, LABELS) < margins(MODEL, X, LABELS)).all()
    assert not torch.equal(points[~right], X[~right])
    narrow = fast_gradient_points(MODEL, X * 0.5 + 0.2, LABELS, eps=0.3, bounds=(0.2, 0.7))
    assert narrow.aminmax() == (0.2, 0.7)


def test_extreme_pixels():
    found = extreme_pixels(MODELS, X, LABELS, most=9)
    for model, accuracies in zip(MODELS.values(), found.accuracy, strict=True):
        order = model.weight.flatten().argsort()
        for count, accuracy in zip(found.pixels.tolist(), accuracies, strict=True):
            points = X.flatten(1).clone()
            points[:, order[:count]] = 1
            points[:, order[SIZE - count :]] = 1
            assert accuracy == (model(points).argmax(1) == LABELS).double().mean()


def test_weight_images():
    found = weight_images(MODELS, X, LABELS, eps=0.2, scale=0.5)
    assert found.weight.shape == (2, *SHAPE)
    rows = torch.cat([model.weight for model in MODELS.values()])
    torch.testing.assert_close(found.weight.flatten(1), rows)
    assert torch.equal(found.sign.flatten(1), 0.2 * rows.sign())
    unit = 0.5 * rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.gradient.flatten(1), unit.clamp(-0.2, 0.2))
    assert (unit.abs() > 0.2).any()
    means = [X[label == LABELS].mean(0).flatten() for label in (0, 1)]
    cosine = (rows[1] @ (means[1] - means[0])) / (rows[1].norm() * (means[1] - means[0]).norm())
    assert float(found.angle[1].deg2rad().cos()) == pytest.approx(float(cosine), rel=1e-12)
    expert = TwoClassLinear(SIZE).double().initialise_as_expert(X, LABELS)
    assert float(weight_images({"e": expert}, X, LABELS).angle[0]) == pytest.approx(0, abs=1e-13)


def test_kept_parts_are_not_computed_again(tmp_path):
    first = linear_robustness(MODELS, X, LABELS, norm="l2", batch_size=30, work=Work(tmp_path))
    done = []
    work = Work(tmp_path, lambda progress: done.append((progress.done, progress.resumed)))
    again = linear_robustness(MODELS, X, LABELS, norm="l2", batch_size=30, work=work)
    assert torch.equal(first.distance, again.distance)
    assert done[-1] == (len(X), len(X))


def test_variants_are_what_they_say():
    data = X.float(), LABELS
    kinds = ("natural", "expert", "binarised", "l1 32", "FGSM")
    models = {name: logistic_model(LOGISTIC_VARIANTS[name], data, steps=40, lr=0.01) for name in kinds}
    again = logistic_model(LOGISTIC_VARIANTS["natural"], data, steps=40, lr=0.01)
    assert torch.equal(models["natural"].weight, again.weight)
    for given in ({"steps": 30}, {"lr": 0.02}, {"seed": 1}):
        other = logistic_model(LOGISTIC_VARIANTS["natural"], data, **({"steps": 40, "lr": 0.01} | given))
        assert not torch.equal(other.weight, again.weight)
    assert torch.equal(models["expert"].weight, TwoClassLinear(SIZE).initialise_as_expert(*data).weight)
    assert len(models["binarised"].direction.abs().unique()) == 1
    assert models["l1 32"].weight.abs().sum() < models["natural"].weight.abs().sum()
    assert not any(model.training or model.weight.requires_grad for model in models.values())


@pytest.mark.parametrize("attack", ["fgm", "fgm_clipped"])
def test_objective_is_the_loss_at_the_attacks_points_and_the_decays(attack):
    model, x, labels = problem(dtype=torch.float32)
    model.requires_grad_()
    objective = LogisticVariant(attack=attack, eps=0.1, l1=3.0, l2=0.5).objective()
    loss, _ = objective(model, Batch(x, labels, torch.arange(len(x))))
    points = fast_gradient_points(model, x, labels, eps=0.1, scale=None if attack == "fgm" else 100.0)
    if attack == "fgm_clipped":  # which leaves what is misclassified already as it is
        points[model(x).argmax(1) != labels] = x[model(x).argmax(1) != labels]
    decay = 3 / 784 * model.weight.abs().sum() + 0.25 * model.weight.square().sum()
    expected = F.cross_entropy(model(points), labels) + decay
    torch.testing.assert_close(loss, expected)


def test_models_are_left_as_found():
    model = nn.Sequential(nn.BatchNorm2d(1), TwoClassLinear(SIZE)).double().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    loss_translation(model, X, LABELS)
    extreme_pixels({"m": model}, X, LABELS, most=2)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_pictures():
    pytest.importorskip("matplotlib")
    found = loss_translation(MODEL, X, LABELS)
    assert len(found.plot().axes) == 4
    assert "error 100.0 %" in found.plot_loss(eps=50.0).axes[0].get_title(loc="left")
    assert len(weight_images(MODELS, X, LABELS).plot().axes) == 6
    for norm, label in (("linf", "infty"), ("l0", "values changed")):
        (axis,) = linear_robustness(MODELS, X, LABELS, norm=norm).plot().axes
        assert label in axis.get_xlabel()
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b"]
    assert len(extreme_pixels(MODELS, X, LABELS, most=3).plot().axes[0].lines) == 3


BENT = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 8), nn.ReLU(), nn.Linear(8, 2)).double()
THREE = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 3)).double()
FLAT = TwoClassLinear(SIZE).double()


class Broken(nn.Module):
    """Affine, but for one sample whose logits are NaN."""

    def forward(self, x):
        return torch.where((x == X[-1]).flatten(1).all(1, keepdim=True), math.nan, MODEL(x))


nn.init.zeros_(FLAT.weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loss_translation(BENT, X, LABELS), "model: expected logits whose difference is affine"),
        (lambda: loss_translation(Broken(), X, LABELS), "model: expected logits whose difference is affine"),
        (lambda: loss_translation(THREE, X, LABELS), "model: expected two logits"),
        (lambda: loss_translation(FLAT, X, LABELS), "model: expected logits that depend"),
        (lambda: loss_translation(MODEL, X, LABELS + 1), "labels: expected"),
        (lambda: loss_translation(MODEL, X, LABELS, norm="l0"), "norm: expected"),
        (lambda: loss_translation(MODEL, X, LABELS, loss="square"), "loss: expected"),
        (lambda: loss_translation(MODEL, X, LABELS, batch_size=0), "batch_size: expected"),
        (lambda: loss_translation(MODEL, X, LABELS).risk(eps=-1.0), "eps: expected"),
        (lambda: linear_robustness({}, X, LABELS), "models: expected"),
        (lambda: linear_robustness(MODELS, X, LABELS, bounds=(0.0, 0.5)), "inputs: expected"),
        (lambda: extreme_pixels(MODELS, X, LABELS, most=13), "most: expected"),
        (lambda: weight_images(MODELS, X, LABELS, eps=0.0), "eps: expected"),
        (lambda: weight_images(MODELS, X, torch.zeros_like(LABELS)), "labels: expected both"),
        (lambda: fast_gradient_points(MODEL, X, LABELS, scale=-1.0), "scale: expected"),
        (lambda: logistic_model(LogisticVariant(), (X.float(), LABELS), steps=0), "steps: expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

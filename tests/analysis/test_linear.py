"""The linear closed forms against bisection (tests/oracles.py), and by their own definition."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import Linear, half_space, row_norm

from pyrobust.analysis import mirror_image, nearest_adversarial, nearest_in_half_space, projected_image

SHAPE, SIZE = (3, 4, 4), 48
NORMS = [("linf", "value"), ("l2", "value"), ("l1", "value"), ("l0", "value"), ("l0", "pixel")]
BOUNDS = (0.0, 1.0)
every_norm = pytest.mark.parametrize(("norm", "grouping"), NORMS)


def rows(count=200, seed=0, zeros=0.3, tied=False):
    """Inputs with many values at the bounds, and a half-space for each row that some boxes cannot reach."""
    g = torch.Generator().manual_seed(seed)
    x = (1.4 * torch.rand(count, *SHAPE, generator=g, dtype=torch.float64) - 0.2).clamp(0, 1)
    w = torch.randn(count, SIZE, generator=g, dtype=torch.float64)
    w[torch.rand(w.shape, generator=g) < zeros] = 0
    if tied:
        w, x = w.round(), x.mul(2).round() / 2
    return x, w, 4 * torch.randn(count, generator=g, dtype=torch.float64)


def value(points, w, b):
    return (points.flatten(1) * w).sum(1) + b


@every_norm
@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=["free", "box"])
@pytest.mark.parametrize("tied", [False, True], ids=["", "ties"])
def test_half_spaces_as_by_bisection(norm, grouping, bounds, tied):
    x, w, b = rows(tied=tied)
    channels = 3 if grouping == "pixel" else 1
    optimum, _ = half_space(x, w, b, norm, bounds, channels)
    distance, points = nearest_in_half_space(x, w, b, norm=norm, grouping=grouping, bounds=bounds)
    torch.testing.assert_close(distance, optimum, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        row_norm(points - x, norm, channels), distance.nan_to_num(posinf=0.0), rtol=1e-12, atol=1e-14
    )
    moved = distance.isfinite() & (distance > 0)
    assert moved.any()
    assert (distance == 0).any()
    assert value(points, w, b)[moved].abs().max() < 1e-12
    assert torch.equal(points[~moved], x[~moved])
    if bounds is not None:
        assert points.min() >= 0
        assert points.max() <= 1


@every_norm
def test_without_a_box_the_distance_is_that_of_hoelder(norm, grouping):
    x, w, b = rows(zeros=0.0)
    distance, _ = nearest_in_half_space(x, w, b, norm=norm, grouping=grouping)
    need = value(x, w, b).clamp(min=0)
    if norm == "l0":
        expected = (need > 0).double()
    else:
        expected = need / torch.linalg.vector_norm(w, {"linf": 1, "l2": 2, "l1": math.inf}[norm], dim=1)
    torch.testing.assert_close(distance, expected, rtol=1e-12, atol=0)


@every_norm
def test_no_feasible_point_is_nearer(norm, grouping):
    x, w, b = rows(count=40)
    channels = 3 if grouping == "pixel" else 1
    distance, points = nearest_in_half_space(x, w, b, norm=norm, grouping=grouping, bounds=BOUNDS)
    g = torch.Generator().manual_seed(1)
    nearest = distance.clone()
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(500):
            other = points + scale * torch.randn(points.shape, generator=g, dtype=points.dtype)
            if norm == "l0":  # on a random support
                kept = torch.rand(40, channels, SIZE // channels, generator=g) < torch.rand(40, 1, 1, generator=g)
                kept = kept[:, :1].expand_as(kept) if channels == 3 else kept
                other = torch.where(kept.reshape(other.shape), (w < 0).double().reshape(other.shape), x)
            other = other.clamp(0, 1)
            feasible = value(other, w, b) <= 0
            nearest = torch.where(feasible, torch.minimum(nearest, row_norm(other - x, norm, channels)), nearest)
    assert (nearest >= distance - 1e-12).all()


@every_norm
@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("bounds", [None, BOUNDS], ids=["free", "box"])
def test_classifiers(norm, grouping, classes, bounds):
    x, w, b = rows(count=60, seed=2)
    channels = 3 if grouping == "pixel" else 1
    model = Linear(w[:classes], b[:classes] / 4).double().requires_grad_(False)
    labels = model(x).argmax(1)
    labels[::9] = (labels[::9] + 1) % classes
    distance, points = nearest_adversarial(
        x, labels, model.weight, model.bias, norm=norm, grouping=grouping, bounds=bounds
    )
    optimum, _ = model.nearest(x, labels, norm, bounds, channels)
    torch.testing.assert_close(distance, optimum, rtol=1e-12, atol=1e-14)
    assert (distance[::9] == 0).all()
    assert torch.equal(points[::9], x[::9])
    reached = distance.isfinite() & (distance > 0)
    torch.testing.assert_close(row_norm(points - x, norm, channels)[reached], distance[reached], rtol=1e-12, atol=0)
    beyond = (x + (1 + 1e-9) * (points - x))[reached]
    assert (model(beyond).argmax(1) != labels[reached]).all()
    without = nearest_adversarial(x, labels, model.weight, norm=norm, grouping=grouping, bounds=bounds)
    assert not torch.equal(without.distance, distance)


def test_what_the_box_forbids_is_infinitely_far():
    x, w = torch.full((1, 4), 0.5), torch.ones(4)
    for norm in ("linf", "l2", "l1", "l0"):
        distance, points = nearest_in_half_space(x, w, 0.1, norm=norm, bounds=BOUNDS)
        assert distance.item() == math.inf
        assert torch.equal(points, x.double())
        assert nearest_in_half_space(x, w, 0.1, norm=norm).distance.isfinite()
    assert nearest_in_half_space(x, torch.zeros(4), 0.1).distance.item() == math.inf
    assert nearest_in_half_space(x, torch.zeros(4), 0.0).distance.item() == 0


def test_one_weight_for_all_and_one_for_each():
    x, w, b = rows(count=5)
    shared = nearest_in_half_space(x, w[0].reshape(SHAPE), b[0].item(), norm="l1", bounds=BOUNDS)
    each = nearest_in_half_space(x, w[:1].expand(5, -1), b[:1].expand(5), norm="l1", bounds=BOUNDS)
    assert torch.equal(shared.distance, each.distance)
    assert torch.equal(shared.points, each.points)
    single = nearest_in_half_space(x[:1], w[0], b[0], norm="l1", bounds=BOUNDS)
    torch.testing.assert_close(single.points, shared.points[:1])


@pytest.mark.parametrize("count", [1, 5])
def test_weights_may_have_the_shape_of_the_inputs(count):
    x, w, b = rows(count=count)
    for given in (w, w.reshape(x.shape)):
        assert torch.equal(nearest_in_half_space(x, given, b).points, nearest_in_half_space(x, w, b).points)
    for given in (w[0], w[0].reshape(SHAPE), w[:1]):
        expected = nearest_in_half_space(x, w[:1].expand_as(w), b)
        assert torch.equal(nearest_in_half_space(x, given, b).points, expected.points)
    if count > 1:
        with pytest.raises(ValueError, match=r"^weight: expected"):
            nearest_in_half_space(x, w.T, b)


def test_projected_and_mirror_images():
    x, w, b = rows(count=30)
    w, b = w[0], b[0].item()
    projected, mirrored = projected_image(x, w, b), mirror_image(x, w.reshape(SHAPE), torch.tensor([b]))
    score = value(x, w, b)
    assert value(projected, w, b).abs().max() < 1e-12
    torch.testing.assert_close(value(mirrored, w, b), -score)
    torch.testing.assert_close(mirrored - projected, projected - x)
    torch.testing.assert_close(mirror_image(mirrored, w, b), x)
    torch.testing.assert_close(row_norm(projected - x, "l2"), score.abs() / w.norm())
    inside = score > 0
    torch.testing.assert_close(projected[inside], nearest_in_half_space(x, w, b, norm="l2").points[inside])
    unit = w / w.norm()
    torch.testing.assert_close(
        mirror_image(x, unit), x - 2 * value(x, unit, 0).reshape(-1, 1, 1, 1) * unit.reshape(SHAPE)
    )


X, W = torch.full((2, *SHAPE), 0.5), torch.ones(2, SIZE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: projected_image(X, torch.zeros(SIZE)), "weight: expected"),
        (lambda: mirror_image(X, torch.ones(3)), "weight: expected"),
        (lambda: mirror_image(X, W[0], torch.ones(2)), "bias: expected"),
        (lambda: nearest_in_half_space(X, W[0], 0.0, norm="l3"), "norm: expected"),
        (lambda: nearest_in_half_space(X, torch.ones(3), 0.0), "weight: expected"),
        (lambda: nearest_in_half_space(X, W[0], torch.ones(3)), "offset: expected"),
        (lambda: nearest_in_half_space(X, W[0], 0.0, grouping="pixel"), "grouping: expected"),
        (lambda: nearest_in_half_space(X.flatten(1), W[0], 0.0, norm="l0", grouping="pixel"), "grouping: expected"),
        (lambda: nearest_in_half_space(X, W[0], 0.0, bounds=(0.6, 1.0)), "inputs: expected"),
        (lambda: nearest_in_half_space(X, W[0], 0.0, bounds=(1.0, 0.0)), "bounds: expected"),
        (lambda: nearest_adversarial(X, torch.tensor([0, 2]), W), "labels: expected"),
        (lambda: nearest_adversarial(X, torch.tensor([0, 1]), W[:1]), "weight: expected"),
        (lambda: nearest_adversarial(X, torch.tensor([0, 1]), W, torch.ones(3)), "bias: expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Geometry of binary linear classifiers: closed forms, and the identities of seed 001 to rounding."""

from __future__ import annotations

import math

import pytest
import torch

from pyrobust.analysis.geometry import (
    adversarial_distance,
    empirical_risk,
    error_distance,
    margin_distances,
    raw_score,
    scaled_loss,
    signed_distance,
)
from pyrobust.analysis.linear import mirror_image
from pyrobust.analysis.tilting import nearest_centroid, tilting_angle, tilting_plane

EPS = torch.finfo(torch.float64).eps
ROUND = 200 * EPS  # sums of at most 40 terms of size about 1, a few of them in a row


@pytest.fixture
def classes() -> tuple[torch.Tensor, torch.Tensor]:
    """20 samples each of two classes of 3 × 4 values, in no order."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 3, 4, dtype=torch.float64, generator=generator)
    labels = torch.arange(40) % 2
    inputs[labels == 1] += torch.linspace(-0.5, 1, 12, dtype=torch.float64).reshape(3, 4)
    return inputs, labels


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def test_by_hand() -> None:
    """w = (3, 4), b = −5: distances (8 − 5)/5, −5/5 and (3 − 5)/5 of (0, 2), (0, 0) and (1, 0)."""
    inputs = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]])
    labels, w = torch.tensor([1, 0, 1]), torch.tensor([3.0, 4.0])
    assert raw_score(inputs, w, -5.0).tolist() == [3.0, -5.0, -2.0]
    assert signed_distance(inputs, w, torch.tensor([-5.0])).tolist() == pytest.approx([0.6, -1.0, -0.4], abs=ROUND)
    assert margin_distances(inputs, labels, w, -5.0).tolist() == pytest.approx([0.6, 1.0, -0.4], abs=ROUND)
    assert error_distance(inputs, labels, w, -5.0) == pytest.approx(0.4 / 3, abs=ROUND)
    assert adversarial_distance(inputs, labels, w, -5.0) == pytest.approx(1.2 / 3, abs=ROUND)
    assert empirical_risk(inputs, labels, w, -5.0, loss="0-1") == pytest.approx(1 / 3, abs=ROUND)
    assert empirical_risk(inputs, labels, w, -5.0) == 1.0  # max(1 − z, 0) of 3, 5, −2
    softplus = sum(math.log1p(math.exp(-z)) for z in (3, 5, -2)) / 3
    assert empirical_risk(inputs, labels, w, -5.0, loss="softplus") == pytest.approx(softplus, abs=ROUND)


def test_a_sample_on_the_boundary_is_an_error() -> None:
    inputs, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    assert empirical_risk(inputs, labels, torch.ones(1), -2.0, loss="0-1") == 0.5


@pytest.mark.parametrize("loss", ["0-1", "hinge", "softplus"])
def test_the_norm_scales_the_loss(loss: str, classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = classes
    d = margin_distances(inputs, labels, weight, 0.3)
    by_distance = float(scaled_loss(loss, d, weight.norm()).mean())
    assert by_distance == pytest.approx(empirical_risk(inputs, labels, weight, 0.3, loss=loss), abs=ROUND)
    changed = empirical_risk(inputs, labels, 7 * weight, 7 * 0.3, loss=loss) != pytest.approx(by_distance, abs=1e-6)
    assert changed == (loss != "0-1")


@pytest.mark.parametrize(("loss", "alpha", "beta"), [("hinge", 1.0, 1.0), ("softplus", math.log(2), 0.5)])
def test_limits_of_the_risk(loss: str, alpha: float, beta: float, classes: tuple, weight: torch.Tensor) -> None:
    """‖w‖ → ∞: ‖w‖ d_err; ‖w‖ → 0: α − β ‖w‖ d_adv."""
    inputs, labels = classes
    unit = weight / weight.norm()
    large, small = 1e6, 1e-4
    risk = empirical_risk(inputs, labels, large * unit, loss=loss)
    # Either loss is within max(1, log 2) of its asymptote.
    assert risk == pytest.approx(large * error_distance(inputs, labels, unit), abs=1.0)
    risk = empirical_risk(inputs, labels, small * unit, loss=loss)
    remainder = small**2 / 8 * float(signed_distance(inputs, unit).square().max())  # Taylor's, f″ ≤ 1/4
    assert risk == pytest.approx(
        alpha - beta * small * adversarial_distance(inputs, labels, unit), abs=remainder + ROUND
    )


@pytest.mark.parametrize("bias", [0.0, -3.7])
def test_identity_of_adversarial_distance_and_angle(bias: float, classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = classes
    apart = nearest_centroid(inputs, labels).weight.norm()
    expected = 0.5 * float(apart) * math.cos(tilting_angle(inputs, labels, weight))
    # The bias is added to and taken from sums; its rounding is relative to it.
    assert adversarial_distance(inputs, labels, weight, bias) == pytest.approx(expected, abs=ROUND * (1 + abs(bias)))


def test_unbalanced_classes_break_the_identity(classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = (part[:39] for part in classes)
    apart = nearest_centroid(inputs, labels).weight.norm()
    expected = 0.5 * float(apart) * math.cos(tilting_angle(inputs, labels, weight))
    assert adversarial_distance(inputs, labels, weight, 5.0) != pytest.approx(expected, abs=1e-3)


def test_nearest_centroid_decides_by_distance(classes: tuple) -> None:
    inputs, labels = classes
    w, b = nearest_centroid(inputs, labels)
    means = torch.stack([inputs[labels == label].mean(0) for label in (0, 1)]).flatten(1)
    nearer = torch.cdist(inputs.flatten(1), means).argmin(1)
    assert torch.equal((raw_score(inputs, w, b) > 0).long(), nearer)
    assert tilting_angle(inputs, labels, w) <= 4 * EPS
    assert tilting_angle(inputs, labels, -w) == pytest.approx(math.pi, abs=4 * EPS)


@pytest.mark.parametrize("angle", [1e-9, 1e-3, 1.0, 3.0])
def test_small_and_large_angles(angle: float) -> None:
    inputs, labels = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    w = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert tilting_angle(inputs, labels, w) == pytest.approx(angle, abs=4 * EPS)


def test_plane_holds_weight_boundary_and_mirror_images(classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = classes
    bias = 0.7
    plane = tilting_plane(inputs, labels, weight, bias)
    unit = weight / weight.norm()
    close = {"rtol": 0, "atol": ROUND}
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64), **close)
    torch.testing.assert_close(plane.normal @ plane.axes, unit, **close)
    theta = tilting_angle(inputs, labels, weight)
    torch.testing.assert_close(
        plane.normal, torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64), **close
    )
    # Signed distances can be read off the plane, and a mirror image is a reflection in it.
    read = plane.points @ plane.normal + plane.offset
    torch.testing.assert_close(read, signed_distance(inputs, weight, bias), **close)
    mirrored = plane.project(mirror_image(inputs, weight, bias))
    torch.testing.assert_close(mirrored, plane.points - 2 * read.unsqueeze(1) * plane.normal, **close)
    for label in (0, 1):
        torch.testing.assert_close(plane.centroids[label], plane.points[labels == label].mean(0), **close)
    apart = plane.centroids[1] - plane.centroids[0]
    assert abs(float(apart[1])) <= ROUND
    assert float(apart[0]) == pytest.approx(float(nearest_centroid(inputs, labels).weight.norm()), abs=ROUND)


def test_without_tilt_the_plane_shows_the_largest_spread() -> None:
    """Along the first coordinate the classes differ; of the others the third varies most."""
    spread = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, -3.0]])
    inputs = torch.cat([spread, spread + torch.tensor([2.0, 0.0, 0.0])])
    plane = tilting_plane(inputs, torch.arange(8) // 4, torch.tensor([5.0, 0.0, 0.0]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(plane.axes.abs(), expected, rtol=0, atol=ROUND)
    torch.testing.assert_close(plane.normal, torch.tensor([1.0, 0.0]).double(), rtol=0, atol=ROUND)


@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.0), (1.0, 3.0)])
def test_a_plane_of_samples_on_a_line(direction: tuple[float, float]) -> None:
    """Nothing varies across the line that joins the classes: any direction orthogonal to it will do."""
    w = torch.tensor(direction, dtype=torch.float64)
    plane = tilting_plane(torch.tensor([[-1.0], [1.0], [2.0]]) * w, torch.tensor([0, 1, 1]), w)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=ROUND)
    torch.testing.assert_close(plane.axes[0], w / w.norm(), rtol=0, atol=ROUND)


def test_float32_inputs_are_measured_in_float64(classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = classes
    single = inputs.float()
    assert adversarial_distance(single, labels, weight) == adversarial_distance(single.double(), labels, weight)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x, y, w: raw_score(x, w[:-1]), "weight"),
        (lambda x, y, w: raw_score(x, w, torch.zeros(2)), "bias"),
        (lambda x, y, w: signed_distance(x, 0 * w), "weight"),
        (lambda x, y, w: tilting_angle(x, y, w[:-1]), "weight"),
        (lambda x, y, w: scaled_loss("log", y, 1.0), "loss"),
        (lambda x, y, w: empirical_risk(x, y + 1, w), "labels"),
        (lambda x, y, w: nearest_centroid(x, 0 * y), "labels"),
        (lambda x, y, w: nearest_centroid(0 * x, y), "inputs"),
        (lambda x, y, w: tilting_plane(x.flatten(1)[:, :1], y, w[:1]), "inputs"),
        (lambda x, y, w: raw_score(x * math.nan, w), "inputs"),
    ],
)
def test_errors_name_the_argument(call, named: str, classes: tuple, weight: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        call(*classes, weight)


def test_inputs_that_are_no_tensor(classes: tuple, weight: torch.Tensor) -> None:
    inputs, labels = classes
    for call in (margin_distances, empirical_risk, tilting_plane, mirror_image):
        given = (labels,) if call is not mirror_image else ()
        with pytest.raises(TypeError, match=r"^inputs: expected a torch\.Tensor, got list"):
            call(inputs.tolist(), *given, weight)


def test_plot(classes: tuple, weight: torch.Tensor) -> None:
    pytest.importorskip("matplotlib")
    figure = tilting_plane(*classes, weight).plot()
    (axis,) = figure.axes
    boundary = next(line for line in axis.lines if line.get_label() == "boundary").get_xydata()
    plane = tilting_plane(*classes, weight)
    on_it = torch.as_tensor(boundary) @ plane.normal + plane.offset
    reach = float(abs(boundary).max())
    assert float(on_it.abs().max()) <= ROUND * reach

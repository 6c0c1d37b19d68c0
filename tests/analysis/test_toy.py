"""The toy problem: mirror images and both classifiers against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from pyrobust.analysis import mirror_image, projected_image, tilted_boundaries, toy_boundaries, toy_images, toy_problem

pytest.importorskip("sklearn")

GAP, P = 0.2, (0.4, -0.15)


def test_problem():
    problem = toy_problem(7, gap=0.3, noisy=(0.5, 0.1))
    assert problem.inputs.shape == (15, 2)
    assert problem.inputs.dtype == torch.float64
    clean, labels = problem.inputs[:-1], problem.labels[:-1]
    assert (clean[:, 1] == 0).all()
    assert torch.equal(labels, (clean[:, 0] > 0).long())
    assert clean[:, 0].abs().aminmax() == (0.3, 1.0)
    assert problem.labels[-1] == 0
    assert problem.inputs[-1].tolist() == [0.5, 0.1]
    assert not toy_problem(7, noisy=None).noisy
    assert len(toy_problem(7, noisy=None).labels) == 14


def test_images():
    images = toy_images(torch.tensor([[0.5, -0.25]], dtype=torch.float64), size=6)
    assert images.shape == (1, 1, 6, 6)
    assert (images[0, 0, 2:4, 2:4] == 0.5).all()
    assert (images == -0.25).sum() == 32


def test_mirror_images_over_the_angle():
    image = (-0.8, 0.3)
    found = tilted_boundaries(torch.linspace(-3, 3, 25, dtype=torch.float64), image=image)
    for i, theta in enumerate(found.angle):
        normal = torch.stack([theta.cos(), theta.sin()])
        torch.testing.assert_close(found.mirrored[i], mirror_image(found.image.unsqueeze(0), normal)[0])
        torch.testing.assert_close(found.projected[i], projected_image(found.image.unsqueeze(0), normal)[0])
    torch.testing.assert_close(found.distance, (found.mirrored - found.image).norm(dim=1))
    on_the_line = tilted_boundaries()
    torch.testing.assert_close(on_the_line.distance, 1.6 * on_the_line.angle.cos())
    assert len(on_the_line.angle) == 90


def test_without_decay_the_margin_is_the_largest():
    """The hull of I and p is nearest to J along the segment from (−gap, 0) to p, whose normal is w."""
    slope = math.atan2(-P[1], P[0] + GAP)
    margin = GAP * math.sin(slope)  # half of the distance of (gap, 0) to the segment
    found = toy_boundaries(toy_problem(noisy=P), "hinge", decay=[1e-6, 1e-5])
    torch.testing.assert_close(found.angle, torch.full_like(found.angle, math.pi / 2 - slope), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.weight.norm(dim=1), torch.full_like(found.angle, 1 / margin), rtol=1e-6, atol=0)
    assert found.error.tolist() == [0, 0]
    assert found.fits_noisy.all()


@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_decay_gives_p_up_and_straightens(loss):
    found = toy_boundaries(toy_problem(), loss)
    assert (found.angle.diff() <= 1e-9).all()
    assert (found.weight.norm(dim=1).diff() <= 1e-9).all()
    assert (found.distance.diff() >= -1e-9).all()
    assert found.angle[0].rad2deg() > 70
    assert found.angle[-1].rad2deg() < 2
    assert found.fits_noisy[0]
    assert not found.fits_noisy[-1]
    assert found.error[-1] == pytest.approx(1 / 41)  # p alone


@pytest.mark.parametrize("loss", ["hinge", "softplus"])
def test_risk_is_minimal(loss):
    """The risk is convex: no higher at the solution than at any point around it, which is so nowhere else."""
    problem, decay = toy_problem(), 1e-3
    found = toy_boundaries(problem, loss, decay=[decay])
    sign = 2.0 * problem.labels - 1

    def risk(weight, bias):
        margin = sign * (problem.inputs @ weight + bias)
        loss_of = torch.relu(1 - margin) if loss == "hinge" else torch.nn.functional.softplus(-margin)
        return float(loss_of.mean() + decay / 2 * weight.square().sum())

    weight, bias = found.weight[0], found.bias[0]
    lowest = risk(weight, bias)
    moves = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size in (1e-4, 1e-2, 1.0):
        # libsvm and Newton stop at a gradient of 1e-10 times the number of points
        assert all(risk(weight + size * m[:2], bias + size * m[2]) >= lowest - 1e-8 * size for m in moves)


def test_without_noise_nothing_tilts():
    found = toy_boundaries(toy_problem(noisy=None), "softplus", decay=[1e-4, 1e-2])
    assert found.angle.abs().max() < 1e-9
    assert found.bias.abs().max() < 1e-6
    assert not found.fits_noisy.any()
    torch.testing.assert_close(found.distance, torch.full_like(found.distance, 0.6))


def test_pictures():
    pytest.importorskip("matplotlib")
    problem = toy_problem()
    tilted, fitted = tilted_boundaries(), toy_boundaries(problem, decay=[1e-4, 1e-2])
    assert len(problem.plot().axes) == 9
    assert tilted.plot().axes[0].get_xlabel().startswith("tilting angle")
    assert "30°" in tilted.plot_boundary(30).axes[0].get_title(loc="left")
    assert [axis.get_xlabel() for axis in fitted.plot().axes] == [r"weight decay $\lambda$"] * 2
    assert "10^{-2.0}" in fitted.plot_boundary(1).axes[0].get_title(loc="left")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: toy_problem(1), "images: expected"),
        (lambda: toy_problem(gap=1.0), "gap: expected"),
        (lambda: toy_problem(noisy=(0.0, 2.0)), "noisy: expected"),
        (lambda: tilted_boundaries(torch.zeros(0)), "angles: expected"),
        (lambda: tilted_boundaries(image=(0.0, math.inf)), "image: expected"),
        (lambda: toy_boundaries(toy_problem(), "square"), "loss: expected"),
        (lambda: toy_boundaries(toy_problem(), decay=[]), "decay: expected"),
        (lambda: toy_boundaries(toy_problem(), decay=[0.1, 0.0]), "decay: expected"),
        (lambda: toy_images(torch.zeros(2, 2), size=0), "size: expected"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

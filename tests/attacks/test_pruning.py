"""Points are made sparser by dropping and exchanging pixels, and shorter by turning to the plane of the boundary."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import row_norm

from pyrobust import ops
from pyrobust.attacks._common import rows_like
from pyrobust.attacks._polish import project_to_boundary
from pyrobust.attacks._pruning import prune_groups, rounds_within
from pyrobust.attacks._search import Nearest

from . import models

BOX = (0.0, 1.0)
each_grouping = pytest.mark.parametrize(("grouping", "channels"), [("pixel", 3), ("value", 1)])
each_box = pytest.mark.parametrize("binding", [False, True], ids=["inside", "box-binds"])


def corner(model, x, labels):
    """Every value at the bound that takes it towards the other class: the most adversarial point there is."""
    toward = (model.weight[1 - labels] - model.weight[labels]).reshape(x.shape)
    return torch.where(toward > 0, 1.0, 0.0)


@each_grouping
@each_box
def test_all_that_is_not_needed_goes(grouping, channels, binding):
    model, x, labels = models.two_sided(binding)
    far = corner(model, x, labels)
    optimum = model.nearest(x, labels, "l0", BOX, channels)[0]
    near = prune_groups(model, x, labels, far, grouping, BOX, steps=84, targeted=False)
    assert (model(near).argmax(1) != labels).all()
    # Where one is dropped after another the least needed first, those that are left are the best there are.
    assert torch.equal(row_norm(near - x, "l0", channels).float(), optimum.float())


def test_better_pixels_take_the_place_of_more():
    model, x, _ = models.two_sided(False)
    model.bias[0] += 4.0  # so that several pixels are needed
    labels = model(x).argmax(1)
    assert (labels == 0).all()
    far = corner(model, x, labels)
    optimum = model.nearest(x, labels, "l0", BOX, 3)[0]
    # Pixels from the weakest on, as many as it takes: none can be missed, and the strong ones are not among them.
    gain = (model.weight[1 - labels] - model.weight[labels]).mul((far - x).flatten(1)).reshape(len(x), 3, 16).sum(1)
    order = gain.argsort(1)
    needed = (gain.gather(1, order).cumsum(1) <= -model_gap(model, x, labels).unsqueeze(1)).sum(1) + 1
    kept = torch.zeros_like(gain, dtype=torch.bool).scatter_(1, order, torch.arange(16) < needed.unsqueeze(1))
    start = torch.where(kept.reshape(-1, 1, 4, 4), far, x)
    fooled = model(start).argmax(1) != labels
    clumsy = fooled & (row_norm(start - x, "l0", 3) > optimum + 1)
    assert clumsy.sum() > len(x) / 2
    near = prune_groups(model, x, labels, start, "pixel", BOX, steps=401, targeted=False)
    found = row_norm(near - x, "l0", 3)[clumsy]
    assert (model(near).argmax(1) != labels)[fooled].all()
    assert (found < row_norm(start - x, "l0", 3)[clumsy]).all()
    assert torch.equal(found.float(), optimum[clumsy].float())


def model_gap(model, x, labels):
    """z_other − z_label, negative at the inputs."""
    logits = model(x)
    return (logits.gather(1, 1 - labels.unsqueeze(1)) - logits.gather(1, labels.unsqueeze(1))).squeeze(1)


@pytest.mark.parametrize(("steps", "rounds"), [(11, 0), (12, 1), (23, 1), (24, 2), (1000, 85)])
def test_a_round_takes_as_long_as_the_gradients_it_stands_for(steps, rounds):
    """A gradient is three forward passes' worth of operations, and a round has 32 of those beside."""
    assert rounds_within(steps) == rounds
    assert rounds * (3 + 32) <= 3 * steps < (rounds + 1) * (3 + 32)


def test_it_keeps_to_its_steps_and_to_what_it_was_given():
    model, x, labels = models.two_sided(False)
    forwards = backwards = 0

    def counted(z):
        nonlocal forwards, backwards
        forwards += 1
        backwards += z.requires_grad
        return model(z)

    far = corner(model, x, labels)
    far[0] = x[0]  # nothing was found for it
    given = far.clone()
    short = prune_groups(counted, x, labels, far, "pixel", BOX, steps=24, targeted=False)
    assert (forwards, backwards) == (2 + 64, 2)
    assert torch.equal(far, given)
    assert torch.equal(short[0], x[0])
    assert torch.equal(prune_groups(model, x, labels, far, "pixel", BOX, steps=11, targeted=False), far)
    targeted = prune_groups(model, x, 1 - labels, far, "pixel", BOX, steps=24, targeted=True)
    assert torch.equal(targeted, short)


def test_corners_are_the_bounds_to_the_last_bit():
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    model = lambda z: torch.stack([0.85 - z[:, 0] - 0.5 * (z[:, 1:3] - 0.5).sum(1), z[:, 0] * 0], 1)  # noqa: E731
    start = torch.tensor([[0.5, 0.9, 0.9, 0.5]], dtype=torch.float64)
    labels = torch.zeros(1, dtype=torch.int64)
    near = prune_groups(model, x, labels, start, "value", (0.1, 0.9), steps=70, targeted=False)
    assert torch.equal(near, torch.tensor([[0.9, 0.5, 0.5, 0.5]], dtype=torch.float64))


def test_exchanges_go_through_sets_that_are_worse():
    """{a, b, c} is adversarial and so is {d, e}; of the sets between, {a, b} has a lower margin than all that differ by one."""

    def model(z):
        a, b, c, d, e = z[:, :5].T
        margin = 1 - 0.5 * a - 0.4 * b - 0.2 * c - 0.05 * (d + e) - 1.2 * d * e
        return torch.stack([margin, torch.zeros_like(margin)], 1)

    x = torch.zeros(1, 8)
    labels, start = torch.zeros(1, dtype=torch.int64), torch.tensor([[1.0, 1, 1, 0, 0, 0, 0, 0]])
    few, more = (prune_groups(model, x, labels, start, "value", BOX, steps=steps, targeted=False) for steps in (36, 48))
    assert torch.equal(few, start)
    assert torch.equal(more, torch.tensor([[0.0, 0, 0, 1, 1, 0, 0, 0]]))


def turns_inward(z):
    """a lowers the margin most inside its range, so that at either corner its slope points to the other one."""
    a, b, c, d, e = (z[:, :5] - 0.5).mul(2).T
    within = a.abs() / 2
    margin = 1 - 10 / 3 * (0.8 * within - within**2) - 0.4 * b - 0.2 * c - 0.05 * (d + e)
    margin = margin - 1.2 * d.clamp(min=0) * e.clamp(min=0)
    return torch.stack([margin, torch.zeros_like(margin)], 1)


def points_outward(z):
    """e, at its lower bound, could only rise, and by itself that raises the margin."""
    a, b, c, d, e = z[:, :5].T
    margin = 1 - 0.5 * a - 0.4 * b - 0.2 * c - 0.05 * d + 0.15 * d * d + 0.05 * e - 1.3 * d * e
    return torch.stack([margin, torch.zeros_like(margin)], 1)


@pytest.mark.parametrize(("model", "at"), [(turns_inward, 0.5), (points_outward, 0.0)])
def test_every_round_exchanges_or_lowers_the_margin(model, at):
    """{d, e} is adversarial, and two or three exchanges from {a, b, c}."""
    x = torch.full((1, 8), at)
    start = x.clone()
    start[:, :3] = 1.0
    labels = torch.zeros(1, dtype=torch.int64)
    near = prune_groups(model, x, labels, start, "value", BOX, steps=200, targeted=False)
    assert model(near).argmax() == 1
    assert (near != x).sum() == 2


def test_rows_do_not_depend_on_each_other():
    model, x, labels = models.two_sided(True)
    far = corner(model, x, labels)
    together = prune_groups(model, x, labels, far, "pixel", BOX, steps=70, targeted=False)
    alone = [
        prune_groups(model, x[i : i + 1], labels[i : i + 1], far[i : i + 1], "pixel", BOX, steps=70, targeted=False)
        for i in range(4)
    ]
    assert torch.equal(together[:4], torch.cat(alone))


def nearest_at(points, x, norm):
    nearest = Nearest(x, torch.zeros(len(x), dtype=torch.bool))
    nearest.offer(points, ops.lp_norm(points - x, norm), torch.ones(len(x), dtype=torch.bool))
    return nearest


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_plane_of_a_linear_boundary_is_reached_straight(norm, targeted):
    model, x, labels = models.two_sided(False)
    optimum = model.nearest(x, labels, norm, BOX)[0]
    noise = 0.05 * torch.randn(x.shape, generator=models.generator(3))
    toward = (model.weight[1 - labels] - model.weight[labels]).reshape(x.shape)
    scale = 1.3 * rows_like(-model_gap(model, x, labels) / toward.flatten(1).square().sum(1), x)
    askew = x + scale * toward + noise
    askew = askew[model(askew).argmax(1) != labels]
    rows = model(x + scale * toward + noise).argmax(1) != labels
    assert rows.sum() > len(x) / 2
    x, labels, optimum = x[rows], labels[rows], optimum[rows]
    nearest = nearest_at(askew, x, norm)
    before = nearest.distance.clone()
    project_to_boundary(model, x, 1 - labels if targeted else labels, nearest, norm, BOX, targeted)
    assert (model(nearest.adv).argmax(1) != labels).all()
    torch.testing.assert_close(nearest.distance, ops.lp_norm(nearest.adv - x, norm))
    assert (before > 1.05 * optimum).all()
    # A point that lies beyond the boundary has its own plane there, as far beyond.
    level = model_gap(model, x, labels)
    share = (model_gap(model, askew, labels) - level) / -level
    assert (nearest.distance <= 1.002 * share * optimum).all()
    assert (nearest.distance >= 0.999 * optimum).all()


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_values_at_a_bound_do_not_turn_the_way(norm, dual):
    """Margin ⟨w, x⟩ + b, the same for every x; a third of the values are where they cannot fall with it."""
    generator = models.generator(4)
    w, x = torch.randn(48, generator=generator), 0.4 + 0.2 * torch.rand(6, 48, generator=generator)
    third = torch.arange(48) % 3 == 0
    x[:, third] = (w[third] < 0).to(x.dtype)
    free, bias, level = torch.where(third, 0, w), -(x @ w).mean(), 0.3
    x += torch.outer((level - bias - x @ w) / free.square().sum(), free)
    margin = lambda z: z @ w + bias  # noqa: E731
    model = lambda z: torch.stack([margin(z), torch.zeros(len(z))], 1)  # noqa: E731
    optimum = level / torch.linalg.vector_norm(free, dual)

    noise = 0.01 * torch.randn(x.shape, generator=generator)
    askew = (x - 2 * level * free / free.square().sum() + noise).clamp(0, 1)
    reached = 1 - margin(askew) / level  # of the way, by the plane through that point
    assert (reached > 1).all()
    nearest = nearest_at(askew, x, norm)
    assert (nearest.distance > 1.03 * reached * optimum).all()
    project_to_boundary(model, x, torch.zeros(len(x), dtype=torch.int64), nearest, norm, BOX)
    assert (nearest.distance <= 1.002 * reached * optimum).all()
    assert (nearest.distance >= 0.999 * optimum).all()


def test_nothing_found_stays_nothing():
    model, x, labels = models.two_sided(False)
    nearest = Nearest(x, torch.zeros(len(x), dtype=torch.bool))
    project_to_boundary(model, x, labels, nearest, "l2", BOX)
    assert torch.equal(nearest.adv, x)
    assert (nearest.distance == math.inf).all()

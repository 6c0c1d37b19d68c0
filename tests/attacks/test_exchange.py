"""Points come nearer in l1 where one of their elements gives way to one that other points change."""

from __future__ import annotations

import pytest
import torch
from oracles import row_norm

from pyrobust.attacks._exchange import Changes, exchange_elements

# Class 1 where two elements at least are so far from 0, each in its direction: a gradient of 0 everywhere.
NEEDED = {0: 0.8, 3: -0.7, 6: 0.5, 9: -0.3}
BOX = (-1.0, 1.5)


def gates(z):
    x = z.flatten(1)
    passed = sum(((x[:, i] / need) >= 1).to(x.dtype) for i, need in NEEDED.items())
    return torch.stack([torch.full_like(passed, 1.5), passed], 1)


def always(z):
    zero = 0 * z.flatten(1).sum(1)
    return torch.stack([zero, zero + 1], 1)


def inputs(count=4, dtype=torch.float32):
    """Near 0, but not at it: an element that is far enough from 0 is up to 0.05 farther from the input, or nearer."""
    generator = torch.Generator().manual_seed(count)
    return (0.05 * (2 * torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64) - 1)).to(dtype)


def moved(x, change):
    """The inputs with some elements at other places."""
    flat = x.flatten(1).clone()
    for i, value in change.items():
        flat[:, i] = value
    return flat.reshape(x.shape)


def learned(x, *points):
    changes, everywhere = Changes(x), torch.ones(len(x), dtype=torch.bool)
    for point in points:
        changes.add(point - x, everywhere)
    return changes


def exchanged(x, points, changes, trials=40, *, model=gates, **options):
    labels = torch.zeros(len(x), dtype=torch.int64)
    options = {"seed": 0, "sample_ids": torch.arange(len(x)), "draw": 0, "bounds": BOX, "targeted": False} | options
    if options["targeted"]:
        labels = 1 - labels
    return exchange_elements(model, x, labels, points, changes, trials=trials, **options)


def changed(x, points):
    return [row.nonzero().flatten().tolist() for row in (points != x).flatten(1)]


def test_changes_keep_the_furthest_and_the_sum_of_adversarial_points():
    x = torch.zeros(2, 1, 4, 4)
    changes = Changes(x)
    changes.add(moved(x, {1: 0.5, 2: -0.5}), torch.tensor([True, False]))
    changes.add(moved(x, {1: -0.75, 3: 0.25}), torch.tensor([True, True]))
    assert changes.furthest.flatten(1)[:, :4].tolist() == [[0, -0.75, -0.5, 0.25], [0, -0.75, 0, 0.25]]
    assert changes.total.flatten(1)[:, :4].tolist() == [[0, 1.25, 0.5, 0.25], [0, 0.75, 0, 0.25]]
    assert not changes.furthest.flatten(1)[:, 4:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("targeted", [False, True])
def test_elements_give_way_to_those_that_need_less(dtype, targeted):
    x = inputs(dtype=dtype)
    far, other = moved(x, {0: 0.9, 3: -0.9}), moved(x, {6: 0.55, 9: -0.55})
    near = exchanged(x, far, learned(x, far, other), targeted=targeted)
    assert near.dtype == dtype
    assert (gates(near).argmax(1) == 1).all()
    assert changed(x, near) == [[6, 9]] * len(x)
    assert (row_norm(near - x, "l1") <= row_norm(other - x, "l1") + 1e-6).all()


def test_what_does_not_come_nearer_stays_as_it_is():
    x = inputs()
    best, far = moved(x, {6: 0.5, 9: -0.3}), moved(x, {0: 0.9, 3: -0.9})
    assert torch.equal(exchanged(x, best, learned(x, best, far)), best)
    assert torch.equal(exchanged(x, far, learned(x, far)), far), "no other point is known"
    assert torch.equal(exchanged(x, x, learned(x, far)), x), "nothing is changed"
    # Whatever is tried is adversarial, and the input itself.
    assert torch.equal(exchanged(x, x, learned(x, far), model=always), x)


def test_a_trial_takes_the_room_there_is_and_no_more():
    x = inputs(500)
    points, far = moved(x, {2: 0.5, 5: -0.25, 7: 0.25}), moved(x, {11: 1.4})
    once = exchanged(x, points, learned(x, points, far), 1, model=always)
    # 11 may go further than any of the three that it can replace: the whole gain is the 0.003 that is asked for.
    ratio = row_norm(once - x, "l1") / row_norm(points - x, "l1")
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.997), rtol=1e-5, atol=0)
    assert all(11 in elements and len(elements) == 3 for elements in changed(x, once))
    low = exchanged(x, points, learned(x, points, far), 1, model=always, bounds=(-1.0, 0.1))
    assert low.max() <= 0.1


def test_elements_are_drawn_by_how_far_they_are_changed():
    """Of 4000 coins a share of 3/4 deviates by 0.007."""
    x = torch.zeros(4000, 1, 4, 4)
    points = moved(x, {2: 0.25, 5: 0.75})
    changes = learned(x, points, moved(x, {8: 0.01}), *[moved(x, {10: 0.01})] * 3)
    once = exchanged(x, points, changes, 1, model=always).flatten(1)
    assert (once[:, 5] == 0).double().mean().item() == pytest.approx(0.75, abs=0.028)
    assert ((once[:, 2] == 0) != (once[:, 5] == 0)).all()
    assert (once[:, 10] > 0).double().mean().item() == pytest.approx(0.75, abs=0.028)
    assert ((once[:, 8] > 0) != (once[:, 10] > 0)).all()


def test_trials_are_keyed_by_sample_seed_and_draw():
    x = inputs(64)
    far, other = moved(x, {0: 0.9, 3: -0.9}), moved(x, {6: 0.6, 9: -0.6})
    few = exchanged(x, far, learned(x, far, other), 1)
    part = slice(20, 22)
    alone = exchanged(x[part], far[part], learned(x[part], far[part], other[part]), 1, sample_ids=torch.arange(20, 22))
    assert torch.equal(few[part], alone)
    assert len({tuple(elements) for elements in changed(x, few)}) > 1
    for other_key in ({"seed": 1}, {"draw": 1}, {"sample_ids": torch.arange(64, 128)}):
        assert changed(x, exchanged(x, far, learned(x, far, other), 1, **other_key)) != changed(x, few)
    same = exchanged(x, far, learned(x, far, other), 1, sample_ids=torch.zeros(64, dtype=torch.int64))
    assert len({tuple(elements) for elements in changed(x, same)}) == 1

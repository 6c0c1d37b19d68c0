"""Points come nearer in l1 where one of their elements gives way to one that other points change."""

from __future__ import annotations

import pytest
import torch
from oracles import row_norm

from pyrobust.attacks._exchange import Changes, exchange_elements
from pyrobust.attacks._search import is_adversarial

BOX = (0.0, 1.0)
SHAPE = (4, 1, 4, 4)
# By element: how far it has to be changed; adversarial are points with two of these so far at least.
NEEDED = {0: 0.8, 3: 0.7, 6: 0.5, 9: 0.3}


def gates(z):
    """Class 1 where two elements have passed their thresholds, wherever the others are: a gradient of 0 everywhere."""
    x = z.flatten(1)
    passed = sum((x[:, i] >= need).to(x.dtype) for i, need in NEEDED.items())
    return torch.stack([torch.full_like(passed, 1.5), passed], 1)


def gated(*changed: int) -> torch.Tensor:
    return torch.zeros(SHAPE).flatten(1).index_fill(1, torch.tensor(changed), 0.9).reshape(SHAPE)


def exchanged(points, changes, trials=40, keep=slice(None), **options):
    keys = {"seed": 0, "sample_ids": torch.arange(len(points)), "draw": 0, "bounds": BOX, "targeted": False} | options
    keys["sample_ids"] = keys["sample_ids"][keep]
    x, labels = torch.zeros_like(points), torch.zeros(len(points), dtype=torch.int64)
    labels = 1 - labels if keys["targeted"] else labels
    chosen = Changes(x[keep])
    chosen.furthest, chosen.total = changes.furthest[keep], changes.total[keep]
    return exchange_elements(gates, x[keep], labels[keep], points[keep], chosen, trials=trials, **keys)


@pytest.fixture
def known():
    """Three points that are adversarial, and one that is not though it changes most."""
    changes = Changes(torch.zeros(SHAPE))
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    changes.add(gated(0, 3), yes)
    changes.add(0.5 * gated(6, 9), yes)  # not far enough for 6: 0.45
    changes.add(0.6 * gated(6, 9), yes)
    changes.add(gated(1, 2, 12), no)
    return changes


def test_changes_keep_the_furthest_and_the_sum_of_adversarial_points(known):
    expected = 0.9 * torch.isin(torch.arange(16), torch.tensor([0, 3])) + 0.54 * torch.isin(
        torch.arange(16), torch.tensor([6, 9])
    )
    torch.testing.assert_close(known.furthest.flatten(1), expected.expand(4, -1), rtol=1e-6, atol=0)
    expected[[6, 9]] += 0.45
    torch.testing.assert_close(known.total.flatten(1), expected.expand(4, -1), rtol=1e-6, atol=0)
    known.add(-gated(6), torch.tensor([True, False, True, False]))
    assert known.furthest.flatten(1)[:, 6].tolist() == pytest.approx([-0.9, 0.54, -0.9, 0.54])


def test_elements_give_way_to_those_that_need_less(known):
    far = gated(0, 3)
    near = exchanged(far, known)
    assert is_adversarial(gates(near), torch.zeros(4, dtype=torch.int64), False).all()
    norms = row_norm(near, "l1")
    # Between what is needed and 0.54 of each, as far as the point that needs less changes them.
    assert ((norms >= 0.8) & (norms <= 1.08 + 1e-6)).all()
    changed = near.flatten(1).nonzero()[:, 1].unique()
    assert changed.tolist() == [6, 9]
    fewer = exchanged(far, known, trials=1)
    assert (row_norm(fewer, "l1") >= norms).all()
    assert (row_norm(fewer, "l1") > norms + 0.1).any()
    towards = exchanged(far, known, targeted=True)
    assert torch.equal(towards, near)


def test_what_does_not_come_nearer_stays_as_it_is(known):
    best = torch.zeros(SHAPE).flatten(1)
    best[:, 6], best[:, 9] = 0.5, 0.3
    best = best.reshape(SHAPE)
    assert torch.equal(exchanged(best, known), best)
    assert torch.equal(exchanged(torch.zeros(SHAPE), known), torch.zeros(SHAPE))
    far = gated(0, 3)
    assert torch.equal(exchanged(far, Changes(torch.zeros(SHAPE))), far), "no other point is known"


def test_trials_are_keyed_by_sample(known):
    far = gated(0, 3)
    few = exchanged(far, known, trials=3)
    assert torch.equal(few[2:3], exchanged(far, known, trials=3, keep=slice(2, 3)))
    ids = torch.tensor([7, 7, 8, 9])
    same = exchanged(far, known, trials=3, sample_ids=ids)
    assert torch.equal(same[0], same[1])
    assert any(not torch.equal(few, exchanged(far, known, trials=3, **other)) for other in ({"seed": 1}, {"seed": 2}))
    assert any(not torch.equal(few, exchanged(far, known, trials=3, draw=draw)) for draw in (50, 100))

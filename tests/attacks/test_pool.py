"""The points that starts led to: of each sample, the nearest few."""

from __future__ import annotations

import torch

from pyrobust.attacks._pool import Pool, nearer


def entry(distances, value):
    distance = torch.tensor(distances)
    return distance, torch.full((len(distances), 2), float(value)), torch.full((len(distances),), value)


def test_nearer_takes_whole_rows_and_keeps_the_first_of_equals():
    near, far = nearer(entry([1.0, 2.0, 3.0], 0), entry([2.0, 1.0, 3.0], 1))
    assert near[0].tolist() == [1.0, 1.0, 3.0]
    assert near[1].tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    assert near[2].tolist() == [0, 1, 0]
    assert far[0].tolist() == [2.0, 2.0, 3.0]
    assert far[2].tolist() == [1, 0, 1]


def test_a_pool_keeps_the_nearest_in_order():
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(7, 5, generator=generator)
    pool = Pool(3)
    for number, distance in enumerate(distances):
        pool.add((distance, torch.full((5,), number)))
        assert len(pool.places) == min(3, number + 1)
    sorted_, order = distances.sort(0)
    assert torch.equal(torch.stack([place[0] for place in pool.places]), sorted_[:3])
    assert torch.equal(torch.stack([place[1] for place in pool.places]), order[:3])


def test_an_entry_improves_its_own_place_alone():
    pool = Pool(2)
    pool.add(entry([1.0, 1.0], 0))
    pool.add(entry([2.0, 2.0], 1))
    pool.improve(1, entry([0.5, 3.0], 2))
    assert [place[0].tolist() for place in pool.places] == [[1.0, 1.0], [0.5, 2.0]]
    assert [place[2].tolist() for place in pool.places] == [[0, 0], [2, 1]]
    nowhere = Pool(0)
    nowhere.add(entry([1.0], 0))
    assert nowhere.places == []

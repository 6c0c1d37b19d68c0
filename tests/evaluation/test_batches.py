from __future__ import annotations

import pytest

from pyrobust.evaluation.batches import micro_batches, padded


@pytest.mark.parametrize(("samples", "size"), [(1, 1), (1, 8), (8, 8), (9, 8), (127, 16)])
def test_batches_cover_every_sample_once_and_start_at_multiples_of_the_size(samples: int, size: int) -> None:
    batches = micro_batches(samples, size)
    assert [i for batch in batches for i in batch] == list(range(samples))
    assert all(batch.start == number * size for number, batch in enumerate(batches))


def test_more_samples_leave_the_full_batches_as_they_were() -> None:
    assert micro_batches(20, 8)[:2] == micro_batches(100, 8)[:2]


def test_padding_repeats_the_samples_in_order() -> None:
    assert padded(range(8, 11), 8).tolist() == [8, 9, 10, 8, 9, 10, 8, 9]
    assert padded(range(0, 4), 4).tolist() == [0, 1, 2, 3]

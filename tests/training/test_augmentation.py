"""Flips and translations against crops cut by hand; their keys and their distribution."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from pyrobust import ops
from pyrobust.data import FlipAndShift


def images(count: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Distinct values in (0.1, 1], so that every shift and flip can be told from all others, and from a fill of 0."""
    total = count * shape[0] * shape[1] * shape[2]
    order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
    return (0.1 + 0.9 * (order + 1) / total).reshape(count, *shape).to(dtype)


def moved(image: Tensor, down: int, right: int, flip: bool, fill: float) -> Tensor:
    """One image, value by value."""
    result = torch.full_like(image, fill)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result.flip(2) if flip else result


def found(result: Tensor, image: Tensor, augmentation: FlipAndShift) -> tuple[int, int, bool]:
    """Which move of the image it is; exactly one."""
    moves = range(-augmentation.shift, augmentation.shift + 1)
    matches = [
        (down, right, flip)
        for down in moves
        for right in moves
        for flip in ((False, True) if augmentation.flip else (False,))
        if torch.equal(result, moved(image, down, right, flip, augmentation.fill))
    ]
    assert len(matches) == 1
    return matches[0]


@pytest.mark.parametrize(
    "augmentation",
    [FlipAndShift(shift=2), FlipAndShift(flip=False, shift=1, fill=0.05), FlipAndShift(shift=0), FlipAndShift(shift=4)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_result_is_a_flipped_crop(augmentation: FlipAndShift, dtype: torch.dtype, device: torch.device) -> None:
    # bfloat16 tells 2⁷ values apart in [0.5, 1]: few pixels. Filled by more than its width, an image may be all fill.
    shape = (1, 3, 4) if dtype == torch.bfloat16 else (2, 5, 6)
    if augmentation.shift >= min(shape[1:]):
        augmentation = dataclasses.replace(augmentation, shift=min(shape[1:]) - 1)
    augmentation = dataclasses.replace(augmentation, fill=float(torch.tensor(augmentation.fill).to(dtype)))
    inputs = images(6, *shape, dtype=dtype).to(device)
    before = inputs.clone()
    result = augmentation(inputs, torch.arange(6, device=device), 3, 0)
    assert torch.equal(inputs, before)
    assert (result.shape, result.dtype, result.device) == (inputs.shape, dtype, inputs.device)
    moves = {found(one.cpu(), image.cpu(), augmentation) for one, image in zip(result, inputs, strict=True)}
    assert len(moves) > 1


def test_moves_depend_on_the_key_alone() -> None:
    augmentation, inputs = FlipAndShift(), images(16, 1, 9, 9)
    ids = torch.arange(100, 116)
    state = torch.get_rng_state()
    result = augmentation(inputs, ids, 5, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(result, augmentation(inputs, ids, 5, 1))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(result[order], augmentation(inputs[order], ids[order], 5, 1))
    assert torch.equal(result[4:7], augmentation(inputs[4:7], ids[4:7], 5, 1))
    assert torch.equal(result.double(), augmentation(inputs.double(), ids, 5, 1))
    for key in ((ids + 1, 5, 1), (ids, 6, 1), (ids, 5, 2)):
        assert not torch.equal(result, augmentation(inputs, *key))


def test_moves_are_uniform_and_independent() -> None:
    """Chi-square of all 2 · 3 · 3 moves over 9000 samples: 17 degrees of freedom, so below 17 + 5 √34 (five deviations)."""
    count = 9000
    augmentation, image = FlipAndShift(shift=1), images(1, 1, 3, 3)
    results = augmentation(image.expand(count, -1, -1, -1), torch.arange(count), 0, 0)
    kinds = {
        (down, right, flip): moved(image[0], down, right, flip, 0.0)
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        for flip in (False, True)
    }
    observed = torch.tensor([int((results == kind).flatten(1).all(1).sum()) for kind in kinds.values()])
    assert int(observed.sum()) == count
    expected = count / 18
    assert float(((observed - expected) ** 2 / expected).sum()) < 17 + 5 * 34**0.5


def test_flips_are_not_the_attacks_numbers() -> None:
    """An attack's random start with the same seed, ids and step: the signs agree half of the time, within five standard
    errors."""
    count = 4000
    inputs = images(1, 1, 1, 2).expand(count, -1, -1, -1)
    flipped = (FlipAndShift(shift=0)(inputs, torch.arange(count), 0, 0) != inputs).flatten(1).all(1)
    starts = ops.sample_lp_ball(inputs.contiguous(), torch.inf, seed=0, step=0).flatten(1)
    for column in range(2):
        agree = float(((starts[:, column] < 0) == flipped).double().mean())
        assert abs(agree - 0.5) < 5 * 0.5 / count**0.5


def test_bounds_and_identity() -> None:
    inputs = images(8, 3, 8, 8)
    result = FlipAndShift(fill=0.5)(inputs, torch.arange(8), 0, 0)
    assert float(inputs.min()) <= float(result.min())
    assert float(result.max()) <= float(inputs.max())
    assert FlipAndShift(flip=False, shift=0)(inputs, torch.arange(8), 0, 0) is inputs
    assert FlipAndShift()(inputs[:0], torch.arange(0), 0, 0).shape == (0, 3, 8, 8)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="shift: expected"):
        FlipAndShift(shift=-1)
    with pytest.raises(ValueError, match="inputs: expected images"):
        FlipAndShift()(torch.zeros(4, 10), torch.arange(4), 0, 0)

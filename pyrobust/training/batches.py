"""The batches of an epoch, as they follow from seed and epoch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

from pyrobust._checks import check_inputs, check_labels
from pyrobust.training.distributed import World
from pyrobust.training.randomness import ORDER, shuffled
from pyrobust.training.recipe import Recipe
from pyrobust.training.term import Batch


class Batches:
    """Cuts a data set in memory into batches of one size; what is left over at the end of an epoch is dropped, other
    samples each time.

    Args:
        inputs, labels: the whole training set, anywhere; batches are taken there and go to ``device``.
        recipe: for its batch size, validation, augmentation, bounds and seed.
        world: each process takes its slice of every batch.

    Raises:
        TypeError, ValueError: the data is not as it should be, there are fewer samples than one batch, or a batch cannot
            be shared out evenly.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, recipe: Recipe, device: torch.device, world: World) -> None:
        check_inputs(inputs, recipe.bounds)
        check_labels(labels, inputs)
        self.inputs, self.labels, self.recipe, self.device, self.world = inputs, labels, recipe, device, world
        everything = torch.arange(len(inputs))
        split = recipe.validation.split(len(inputs), recipe.seed) if recipe.validation else (everything, everything[:0])
        self.train_ids, self.held_ids = split
        self.per_epoch = len(self.train_ids) // recipe.batch_size
        if self.per_epoch == 0:
            raise ValueError(
                f"batch_size: expected at most the {len(self.train_ids)} samples to train on, got {recipe.batch_size}"
            )
        if recipe.batch_size % world.size:
            raise ValueError(f"batch_size: expected a multiple of the {world.size} processes, got {recipe.batch_size}")

    def epoch(self, epoch: int, first: int) -> Iterator[tuple[int, Batch]]:
        """The batches of an epoch from number ``first`` on, each with its number in the epoch."""
        recipe, share = self.recipe, self.recipe.batch_size // self.world.size
        order = shuffled(self.train_ids, ORDER, recipe.seed, epoch)
        places, sample_ids = order.to(self.inputs.device), order.to(self.device)
        for index in range(first, self.per_epoch):
            start = index * recipe.batch_size + self.world.rank * share
            part, step = slice(start, start + share), epoch * self.per_epoch + index
            inputs = self.inputs[places[part]].to(self.device, non_blocking=True)
            labels = self.labels[places[part]].to(self.device, non_blocking=True)
            if recipe.augment is not None:
                inputs = recipe.augment(inputs, sample_ids[part], step, recipe.seed)
            yield (
                index,
                Batch(inputs, labels, sample_ids[part], step, step / self.per_epoch, recipe.bounds, recipe.seed),
            )

    def fingerprint(self) -> str:
        """Shape and labels, to tell one data set from another without reading all of it."""
        return f"{tuple(self.inputs.shape)} {zlib.crc32(self.labels.cpu().numpy().tobytes()):08x}"

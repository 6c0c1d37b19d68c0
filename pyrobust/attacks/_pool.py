"""The points that several starts of a search led to, of each sample the nearest few."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrobust.attacks._common import rows_like

# distance (N,), and whatever else belongs to the point, by sample.
Entry = tuple[Tensor, ...]


def nearer(kept: Entry, offered: Entry) -> tuple[Entry, Entry]:
    """Of each sample the nearer of the two, and the other."""
    closer = offered[0] < kept[0]
    pairs = [(rows_like(closer, a), a, b) for a, b in zip(kept, offered, strict=True)]
    return tuple(torch.where(c, b, a) for c, a, b in pairs), tuple(torch.where(c, a, b) for c, a, b in pairs)


class Pool:
    """Entries at up to ``size`` places, of each sample the nearest first until they are replaced."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.places: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Put it where it belongs by its distance."""
        for place, kept in enumerate(self.places):
            self.places[place], entry = nearer(kept, entry)
        if len(self.places) < self.size:
            self.places.append(entry)

    def improve(self, place: int, entry: Entry) -> None:
        """Put it at a place where it is nearer than the entry there."""
        self.places[place], _ = nearer(self.places[place], entry)
